/** What an apply leaves without effect although every document is valid: said at once, not only in a status that somebody must look at. */
import { type CompileOutput, intentKey, type IntentCompileStatus } from "../../mesh/compile/types.ts";
import { takenDestinations, type Taken } from "../../mesh/compile/taken.ts";
import { AgentDiff } from "../../mesh/model/answers.ts";
import type { Kind, Resource } from "../../mesh/model/resources.ts";
import { idleCondition } from "../reconcile/idle.ts";
import type { Services } from "./services.ts";

/** A site without nodes or gateways is an ordinary beginning. */
const INTENTS: ReadonlySet<Kind> = new Set(["MeshRoute", "StaticRoute", "EgressGateway"]);
/** Nodes that are asked what they would refuse: the first of many say enough. */
const ASKED = 16;
const ASK_MS = 2_000;

/**
 * @param ask whether the plan is published: an agent reads it before a question that is sent after it. One that waits for its turn to
 *   get a view that is new to it may answer by the plan before, and then nothing is said of it
 */
export async function effectWarnings(
  { agents }: Pick<Services, "agents">,
  output: CompileOutput | undefined,
  resources: readonly Resource[],
  ask: boolean,
): Promise<string[][]> {
  const found = resources.map(({ kind, metadata }) => (INTENTS.has(kind) ? output?.intentStatus.get(intentKey(kind, metadata.name)) : undefined));
  const nodes = new Set(!ask ? [] : found.flatMap((one) => (one !== undefined && isLan(one) ? one.nodes : [])));
  const asked = [...nodes].flatMap((node) => agents.session(node) ?? []).slice(0, ASKED);
  const answers = await Promise.all(
    asked.map(async (session) => {
      const answer = AgentDiff.safeParse(await session.ask("diff", { views: {}, add: [], drop: [] }, ASK_MS).catch(() => undefined));
      return { node: session.node, refused: answer.data?.refused ?? {} };
    }),
  );
  const takenBy = output === undefined || found.every((one) => one === undefined) ? undefined : takenDestinations(output);
  return found.map((status, i) => {
    if (status === undefined) return idleWarnings(resources[i]);
    const refusals = answers.flatMap(({ node, refused }) => {
      const text = isLan(status) && status.nodes.includes(node) ? refused[status.id ?? ""] : undefined;
      return text === undefined ? [] : [{ node, text }];
    });
    const asked = isLan(status) && refusals.length > 0;
    return [...compileWarnings(status), ...(asked ? [] : takenWarnings(takenBy?.(status) ?? [])), ...refusalWarnings(refusals)];
  });
}

function idleWarnings(resource: Resource | undefined): string[] {
  const idle = resource === undefined ? undefined : idleCondition(resource.kind);
  return idle?.message === undefined ? [] : [idle.message];
}

/** What the plan itself says: gateways that are not there, destinations that may not be steered. */
function compileWarnings(status: IntentCompileStatus): string[] {
  return status.conditions.flatMap(({ type, status: value, message }) => (type !== "Conflict" && value === "False" ? [message] : []));
}

const MOST_TAKEN = 5;

function takenWarnings(taken: readonly Taken[]): string[] {
  const said = taken
    .slice(0, MOST_TAKEN)
    .map(
      ({ destination, by }) =>
        `${destination} is a destination of ${by} too, which is older and keeps it on the nodes of both: change or delete one of the two`,
    );
  return taken.length > MOST_TAKEN ? [...said, `and ${taken.length - MOST_TAKEN} more destinations`] : said;
}

function isLan({ id }: IntentCompileStatus): boolean {
  return id?.startsWith("lanroute/") === true || id?.startsWith("staticroute/") === true;
}

function refusalWarnings(refusals: readonly { readonly node: string; readonly text: string }[]): string[] {
  return [...Map.groupBy(refusals, ({ text }) => text)].map(([text, [first, ...others]]) => {
    const more = others.length === 0 ? "" : ` and ${others.length} more`;
    return `on ${first?.node ?? ""}${more}: ${text}`;
  });
}
