/** Questions about the running agent, from its own socket and from the controller: explain and diff. */
import { parsePlan } from "../mesh/compile/parse-plan.ts";
import type { Choice } from "../mesh/elect/types.ts";
import { IsthmusError } from "../mesh/errors.ts";
import { desiredKernel } from "../mesh/kernel/desired.ts";
import { describeFor, diffKernel } from "../mesh/kernel/diff.ts";
import { type AgentDiff, type Change, type Explanation, MOST_CHANGES, MOST_REFUSED } from "../mesh/model/answers.ts";
import { IpAddress } from "../mesh/model/scalars.ts";
import type { Health } from "./elections.ts";
import { explain } from "./explain.ts";
import { type Holdings, proposed, type ProposedChange } from "./holdings.ts";
import { gatewaysInUse, numberLinks } from "./links.ts";
import type { Pass } from "./reconcile.ts";
import { refusalText } from "./results.ts";

export interface ExplainPorts {
  /** `ip route get`. */
  routeGet(destination: string): Promise<{ ok: boolean; text: string }>;
  readonly wall: (monotonic: number) => number;
}

/** @throws Invalid, NotFound */
export async function explainDestination(text: string, last: Pass | undefined, health: Health, ports: ExplainPorts): Promise<Explanation> {
  const destination = IpAddress.safeParse(text);
  if (!destination.success)
    throw new IsthmusError("Invalid", `${JSON.stringify(text)} is not an address`, { remedy: "give an IPv4 or IPv6 address" });
  if (last === undefined)
    throw new IsthmusError("NotFound", "this node has no plan yet", { remedy: "wait until it has reached its controller once" });
  const kernel = await ports.routeGet(destination.data);
  return explain({
    input: last.input,
    refusals: last.desired.refusals,
    linkViews: health.links,
    lans: last.elections.lans,
    destination: destination.data,
    kernel,
    wall: ports.wall,
    now: performance.now(),
  });
}

/**
 * What a proposed change of the plan would change in this node's kernel, against what is wanted now: at most 2,000 rows, and one
 * that counts the rest; and what it would not route. @throws Invalid
 */
export function diffProposal(change: ProposedChange, holdings: Holdings, last: Pass | undefined): AgentDiff {
  const next = parsePlan(proposed(holdings, change)).plan;
  if (last === undefined || next === undefined) throw new IsthmusError("Invalid", "this node has no plan to compare with yet");
  const { links } = numberLinks(gatewaysInUse(next), last.input.links, new Map());
  const choices = new Map(last.input.choices);
  for (const [id, { gateways }] of next.paths) {
    const carried = choices.get(id)?.active.some((node) => gateways.some((gateway) => gateway.node === node && gateway.retiring !== true));
    const first = gateways[0]?.node;
    // A path that carries nothing yet would be carried by its first gateway.
    if (carried !== true && first !== undefined) choices.set(id, firstChoice(first === next.self.name ? [] : [first]));
  }
  const after = desiredKernel({ ...last.input, plan: next, links, choices });
  const refused = [...Map.groupBy(after.refusals, ({ id }) => id)].slice(0, MOST_REFUSED).map(([id, refusals]) => [id, refusalText(refusals)]);
  return {
    changes: shortened(
      diffKernel(after.state, last.desired.state).flatMap(describeFor({ peers: new Map([...last.input.plan.peers, ...next.peers]) })),
    ),
    ...(refused.length === 0 ? {} : { refused: Object.fromEntries(refused) }),
  };
}

/** The answer is one message to the controller, and nobody reads more rows of one node. */
function shortened(rows: Change[]): Change[] {
  const next = rows[MOST_CHANGES];
  if (next === undefined) return rows;
  return [...rows.slice(0, MOST_CHANGES), { area: next.area, action: next.action, what: `and ${rows.length - MOST_CHANGES} more` }];
}

function firstChoice(active: Choice["active"]): Choice {
  return { active, reason: "Preferred", since: 0, rejected: [], draining: [], wakeAt: undefined };
}
