/**
 * What agents report, as far as peers are compiled from it. Reports are volatile; they become facts, and raise the
 * revision, only when they change, and many together (DESIGN §5).
 */
import { isDeepStrictEqual } from "node:util";
import type { IpAddress, NodeName } from "../../mesh/model/scalars.ts";
import type { AgentReport, NodeFacts } from "../../mesh/model/wire.ts";
import { FOLDER, resourceKey } from "./keys.ts";
import type { Mirror } from "./mirror.ts";
import { commit } from "./draft.ts";
import type { Store } from "../store/types.ts";

/** The first change waits this long for others; under load the window grows with the planner's. */
const DEBOUNCE_MS = 50;
const RETRY_MS = 1_000;

export interface FactsKeeper {
  /** The address that the controller saw a node come from. */
  seen(node: NodeName, address: IpAddress | undefined): void;
  /** `wholeLinks`: the report's links are all there are, not changes. */
  report(node: NodeName, report: AgentReport, how: { readonly wholeLinks: boolean }): void;
  close(): void;
}

export interface FactsOptions {
  readonly store: Store;
  readonly mirror: Mirror;
  readonly onFailure: (error: unknown) => void;
}

const NOTHING: NodeFacts = { endpoints: [], manualEndpoints: [], advertise: [], links: {} };

export function keepFacts({ store, mirror, onFailure }: FactsOptions): FactsKeeper {
  const pending = new Map<NodeName, NodeFacts>();
  let timer: NodeJS.Timeout | undefined;
  let closed = false;

  function change(node: NodeName, edit: (facts: NodeFacts) => NodeFacts): void {
    const stored = (mirror.get(FOLDER.facts + node)?.value as NodeFacts | undefined) ?? NOTHING;
    const next = edit(pending.get(node) ?? stored);
    if (isDeepStrictEqual(next, stored)) {
      pending.delete(node);
      return;
    }
    pending.set(node, next);
    if (!closed) timer ??= setTimeout(() => void flush(), DEBOUNCE_MS);
  }

  async function flush(): Promise<void> {
    timer = undefined;
    const batch = [...pending];
    pending.clear();
    try {
      await commit(store, mirror, (draft) => {
        for (const [node, facts] of batch) {
          // A node that was deleted meanwhile leaves nothing behind.
          if (draft.read(resourceKey("MeshNode", node)) !== undefined) draft.write(FOLDER.facts + node, facts);
        }
      });
    } catch (thrown) {
      onFailure(thrown);
      for (const [node, facts] of batch) if (!pending.has(node)) pending.set(node, facts);
      if (!closed) timer ??= setTimeout(() => void flush(), RETRY_MS);
    }
  }

  return {
    seen: (node, address) => change(node, (facts) => (address === undefined ? facts : { ...facts, seen: address })),
    report: (node, report, { wholeLinks }) => {
      const { endpoints, manualEndpoints, advertise, links } = report;
      if (endpoints === undefined && manualEndpoints === undefined && advertise === undefined && links === undefined) return;
      change(node, (facts) => ({
        ...facts,
        ...(endpoints === undefined ? {} : { endpoints }),
        ...(manualEndpoints === undefined ? {} : { manualEndpoints }),
        ...(advertise === undefined ? {} : { advertise }),
        ...(links === undefined ? {} : { links: mergeLinks(wholeLinks ? {} : facts.links, links) }),
      }));
    },
    close: () => {
      closed = true;
      clearTimeout(timer);
    },
  };
}

function mergeLinks(links: NodeFacts["links"], changed: NonNullable<AgentReport["links"]>): NodeFacts["links"] {
  const merged = { ...links, ...changed };
  return Object.fromEntries(
    Object.entries(merged)
      .filter((entry): entry is [string, number] => entry[1] !== null)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}
