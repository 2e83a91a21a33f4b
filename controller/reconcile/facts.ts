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
import { type Bucket, createBucket, type Rate } from "../bucket.ts";

/** The first change waits this long for others; under load the window grows with the planner's. */
const DEBOUNCE_MS = 50;
const RETRY_MS = 1_000;
/** Each change of one node's facts is a plan for everybody: beyond this its latest word waits, and words in between are skipped. */
const CHANGES: Rate = { perSecond: 0.5, burst: 20 };

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
  const paces = new Map<NodeName, Bucket>();
  let timer: NodeJS.Timeout | undefined;
  let dueAt = Infinity;
  let closed = false;

  /** The earliest of the times that were asked for: who waits for his pace holds nobody up. */
  function flushIn(ms: number): void {
    const at = performance.now() + ms;
    if (closed || at >= dueAt) return;
    clearTimeout(timer);
    dueAt = at;
    timer = setTimeout(() => void flush(), ms);
  }

  /** Takes out what may be written now; gives when the rest may. */
  function ripe(): { readonly batch: readonly (readonly [NodeName, NodeFacts])[]; readonly restInMs: number } {
    const now = performance.now();
    let restInMs = Infinity;
    for (const [node, pace] of paces) if (pace.idle(now)) paces.delete(node);
    const batch = [...pending].filter(([node]) => {
      const pace = paces.get(node) ?? createBucket(CHANGES);
      paces.set(node, pace);
      const wait = pace.ahead(now);
      if (wait > 0) restInMs = Math.min(restInMs, wait);
      else pace.take(1, now);
      return wait === 0;
    });
    for (const [node] of batch) pending.delete(node);
    return { batch, restInMs };
  }

  function change(node: NodeName, edit: (facts: NodeFacts) => NodeFacts): void {
    const stored = (mirror.get(FOLDER.facts + node)?.value as NodeFacts | undefined) ?? NOTHING;
    const next = edit(pending.get(node) ?? stored);
    if (isDeepStrictEqual(next, stored)) {
      pending.delete(node);
      return;
    }
    pending.set(node, next);
    flushIn(DEBOUNCE_MS);
  }

  async function flush(): Promise<void> {
    dueAt = Infinity;
    const { batch, restInMs } = ripe();
    if (restInMs < Infinity) flushIn(restInMs);
    if (batch.length === 0) return;
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
      flushIn(RETRY_MS);
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
