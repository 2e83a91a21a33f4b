/** What an apply or delete would change, node by node: compiled before and after, then asked from the nodes themselves. */
import { createCompiler } from "../../mesh/compile/plan.ts";
import { describeNodeChanges, describeRetirement } from "../../mesh/compile/describe.ts";
import type { CompileOutput } from "../../mesh/compile/types.ts";
import { diffViews } from "../../mesh/compile/views.ts";
import { asIsthmusError, IsthmusError } from "../../mesh/errors.ts";
import { AgentDiff, type NodeDiff } from "../../mesh/model/answers.ts";
import type { Kind, Resource } from "../../mesh/model/resources.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import { preview } from "../reconcile/draft.ts";
import { resourceKey } from "../reconcile/keys.ts";
import { compileInput } from "../reconcile/planner.ts";
import { applyOne, parseAll, removeOne } from "./apply.ts";
import { guardCrossing } from "./crossing.ts";
import type { Services } from "./services.ts";

const ASK_MS = 5_000;
/** Nodes asked at a time. */
const PARALLEL = 64;

export async function diff(
  services: Services,
  documents: readonly unknown[],
  deletions: readonly { readonly kind: Kind; readonly name: string }[],
): Promise<NodeDiff[]> {
  const { mirror, now } = services;
  const resources = documents.length === 0 ? [] : parseAll(services, documents);
  const { result: replaced } = preview(mirror, (draft) => {
    const changed = new Map<string, Resource | undefined>();
    for (const { resource } of resources)
      changed.set(resourceKey(resource.kind, resource.metadata.name), applyOne(draft, services, resource, now()).resource);
    for (const { kind, name } of deletions) {
      removeOne(draft, services, kind, name, now());
      changed.set(resourceKey(kind, name), undefined);
    }
    guardCrossing(draft, mirror, changed);
    return changed;
  });
  const compile = createCompiler();
  const before = compile(compileInput(mirror));
  const after = compile(compileInput(mirror, replaced));
  const changes = diffViews(before, after);
  const asks = [...new Set([...before.audience.keys(), ...after.audience.keys()])]
    .sort()
    .flatMap((node) => proposalFor(node, before, after, changes) ?? []);
  const answers: NodeDiff[] = [];
  for (let i = 0; i < asks.length; i += PARALLEL) {
    answers.push(...(await Promise.all(asks.slice(i, i + PARALLEL).map((ask) => answerOf(services, ask, before, after)))));
  }
  return answers.filter(({ changes, note }) => changes.length > 0 || note !== undefined);
}

/** Body of `ask diff`: views with what is put and deleted, and views that the node would no longer hold. */
interface Proposal {
  readonly node: NodeName;
  readonly views: Readonly<Record<string, { readonly put: Readonly<Record<string, unknown>>; readonly delete: readonly string[] }>>;
  readonly drop: readonly string[];
}

function proposalFor(node: NodeName, before: CompileOutput, after: CompileOutput, changes: ReturnType<typeof diffViews>): Proposal | undefined {
  const had = before.audience.get(node) ?? [];
  const has = after.audience.get(node) ?? [];
  const views: Record<string, { put: Record<string, unknown>; delete: readonly string[] }> = {};
  for (const id of has) {
    const change = changes.get(id);
    if (!had.includes(id)) views[id] = { put: Object.fromEntries(after.views.get(id) ?? []), delete: [] };
    else if (change !== undefined) views[id] = { put: Object.fromEntries(change.put), delete: change.delete };
  }
  const drop = had.filter((id) => !has.includes(id));
  return Object.keys(views).length === 0 && drop.length === 0 ? undefined : { node, views, drop };
}

async function answerOf(services: Services, { node, views, drop }: Proposal, before: CompileOutput, after: CompileOutput): Promise<NodeDiff> {
  const session = services.agents.session(node);
  const retiring = describeRetirement(node, before, after);
  const planned = (note: string): NodeDiff => ({ node, source: "plan", note, changes: [...describeNodeChanges(node, before, after), ...retiring] });
  if (session === undefined) return planned("the node is not connected; this is what its plan would say");
  try {
    const answer = AgentDiff.safeParse(await session.ask("diff", { views, add: Object.keys(views), drop }, ASK_MS));
    if (!answer.success) throw new IsthmusError("BadRequest", "the node answered something else");
    const { changes, refused } = answer.data;
    // Of what the change is about; a view's name is its intent's.
    const texts = Object.entries(refused ?? {}).flatMap(([id, text]) => (id in views ? [`${id}: ${text}`] : []));
    return { node, source: "agent", ...(texts.length === 0 ? {} : { note: texts.join("; ") }), changes: [...changes, ...retiring] };
  } catch (thrown) {
    return planned(`the node did not say (${asIsthmusError(thrown).message}); this is what its plan would say`);
  }
}
