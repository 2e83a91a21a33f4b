/**
 * Changes of views in the words of `isthmus diff`. A connected agent answers from its own kernel state; this is what can be
 * said of a node that is away.
 */
import type { Change } from "../model/answers.ts";
import type { ClientPlan, LanRoutePlan, PathPlan, PeerPlan, SelfPlan, ServePlan, ViewData } from "../model/plan.ts";
import type { NodeName } from "../model/scalars.ts";
import { sameJson } from "./memo.ts";
import type { CompileOutput, ViewChange, ViewId } from "./types.ts";
import { diffView } from "./views.ts";

const EMPTY: ViewData = new Map();

/** What would change on one node, over all views that it holds before and after. Sorted by view and key. */
export function describeNodeChanges(node: NodeName, before: Described | undefined, after: Described): Change[] {
  const ids = new Set([...(before?.audience.get(node) ?? []), ...(after.audience.get(node) ?? [])]);
  return [...ids].sort().flatMap((id) => {
    const old = viewOf(before, node, id);
    const now = viewOf(after, node, id);
    if (old === now) return [];
    const { put, delete: gone } = diffView(old, now) ?? { put: EMPTY, delete: [] };
    return describeViewChange(id, put, gone, old);
  });
}

/** Paths that the node stops serving, or begins to serve again: its kernel does not change before the established flows are over. */
export function describeRetirement(node: NodeName, before: Described | undefined, after: Described): Change[] {
  const state = (output: Described | undefined, id: ViewId): string | undefined => {
    const view = output?.audience.get(node)?.includes(id) === true ? output.views.get(id) : undefined;
    const gateway = (view?.get("path") as PathPlan | undefined)?.gateways.find((one) => one.node === node);
    return gateway === undefined ? undefined : gateway.retiring === true ? "for established flows only, until the drain timeout" : "gateway";
  };
  return [...(after.audience.get(node) ?? [])].sort().flatMap((id) => {
    const [from, to] = [state(before, id), state(after, id)];
    return from === undefined || to === undefined || from === to ? [] : [row("nat", `serving ${id}`, from, to)];
  });
}

type Described = Pick<CompileOutput, "views" | "audience">;

/** The view as far as the node acts on it: nothing when it is not of its audience, or is a path that it serves itself. */
function viewOf(output: Described | undefined, node: NodeName, id: ViewId): ViewData {
  const view = output?.audience.get(node)?.includes(id) === true ? output.views.get(id) : undefined;
  const path = view?.get("path") as PathPlan | undefined;
  return view === undefined || path?.gateways.some((gateway) => gateway.node === node) === true ? EMPTY : view;
}

/** One view's change. `before` is the view until now: it tells a change from an addition and gives the old values. */
export function describeViewChange(view: ViewId, put: ViewChange["put"], remove: ViewChange["delete"], before: ViewData = EMPTY): Change[] {
  const steps: Step[] = [
    ...remove.map((key): Step => ({ key, from: before.get(key), to: undefined })),
    ...[...put].map(([key, value]): Step => ({ key, from: before.get(key), to: value })),
  ].sort((a, b) => (a.key < b.key ? -1 : 1));
  if (view === "mesh") return steps.flatMap(meshChange);
  if (view.startsWith("node/")) return steps.flatMap(nodeChange);
  if (view.startsWith("lanroute/") || view.startsWith("staticroute/")) return lanChange(view, steps, before);
  return pathChange(view, steps, before);
}

interface Step {
  readonly key: string;
  readonly from: unknown;
  readonly to: unknown;
}

function meshChange({ key, from, to }: Step): Change[] {
  if (key === "network") {
    if (from === undefined || to === undefined) return [];
    return [row("address", "the network", JSON.stringify(from), JSON.stringify(to))];
  }
  if (!key.startsWith("peer/")) return [];
  return [row("peer", key.slice("peer/".length), peerText(from), peerText(to))];
}

function nodeChange({ key, from, to }: Step): Change[] {
  const name = key.slice(key.indexOf("/") + 1);
  if (key.startsWith("client/")) return [row("link", `client ${name}`, clientText(from), clientText(to))];
  if (key.startsWith("serve/")) return [row("nat", name, serveText(from), serveText(to))];
  if (key !== "self") return [];
  return selfChange(from as SelfPlan | undefined, to as SelfPlan | undefined);
}

function selfChange(from: SelfPlan | undefined, to: SelfPlan | undefined): Change[] {
  const rows: Change[] = [];
  const compare = (area: Change["area"], what: string, text: (self: SelfPlan) => string): void => {
    const [old, now] = [from && text(from), to && text(to)];
    if (old !== now) rows.push(row(area, what, old === "" ? undefined : old, now === "" ? undefined : now));
  };
  compare("address", "own addresses", (self) => `of index ${self.index}`);
  compare("route", "own LANs kept off the overlay", (self) => self.subnets.join(", "));
  compare("route", "advertised prefixes", (self) => self.advertise.join(", "));
  compare("link", "drain", (self) => (self.drain === undefined ? "" : `within ${self.drain.timeoutMs} ms`));
  return rows.filter(({ from: old, to: now }) => old !== undefined || now !== undefined);
}

/** A path as a client sees it: a route per destination, and one next hop group that all of them share. */
function pathChange(view: ViewId, steps: readonly Step[], before: ViewData): Change[] {
  const head = steps.find(({ key }) => key === "path");
  const old = before.get("path") as PathPlan | undefined;
  const now = (head === undefined ? old : head.to) as PathPlan | undefined;
  const rows = destinationRows(steps, `through ${view}`, `through ${view}`);
  if (head === undefined) return rows;
  const [oldText, nowText] = [old && gatewaysText(old), now && gatewaysText(now)];
  if (oldText !== nowText) rows.push(row("nexthop", view, oldText, nowText));
  if (old !== undefined && now !== undefined) {
    // The gateway's own `serve` entry tells of a new source address; a client does nothing about it.
    const rest = (plan: PathPlan): string => JSON.stringify({ ...plan, gateways: undefined, created: undefined, snat: undefined });
    if (rest(old) !== rest(now)) rows.push(row("link", `${view}: how it is probed and moved`, rest(old), rest(now)));
  }
  return rows;
}

function lanChange(view: ViewId, steps: readonly Step[], before: ViewData): Change[] {
  const head = steps.find(({ key }) => key === "lan");
  const old = before.get("lan") as LanRoutePlan | undefined;
  const now = (head === undefined ? old : head.to) as LanRoutePlan | undefined;
  const rows = destinationRows(steps, old && lanText(old), now && lanText(now));
  if (old === undefined || now === undefined) return rows;
  if (lanText(old) !== lanText(now)) rows.push(row("nexthop", view, lanText(old), lanText(now)));
  else if (!sameJson({ ...old, created: 0 }, { ...now, created: 0 }))
    rows.push(row("nexthop", `${view}: health`, JSON.stringify(old.health), JSON.stringify(now.health)));
  return rows;
}

function destinationRows(steps: readonly Step[], old: string | undefined, now: string | undefined): Change[] {
  return steps
    .filter(({ key }) => key.startsWith("d/"))
    .map(({ key, from, to }) => row("route", key.slice(2), from === undefined ? undefined : old, to === undefined ? undefined : now));
}

function row(area: Change["area"], what: string, from: string | undefined, to: string | undefined): Change {
  const action = to === undefined ? "remove" : from === undefined ? "add" : "change";
  return { area, action, what, ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) };
}

function peerText(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  const { i, k, s, e, n, a } = value as PeerPlan;
  const parts = [`index ${i}`, `key ${k}`, `site ${s}`, e.length === 0 ? "no endpoint" : `at ${e.join(", ")}`];
  if (n === 1) parts.push("behind NAT");
  if (a !== undefined) parts.push(`advertises ${a.join(", ")}`);
  return parts.join("; ");
}

function clientText(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  const { paths, pair, port } = value as ClientPlan;
  return paths.join(", ") + (pair === undefined ? "" : "; one link for both ways") + (port === undefined ? "" : `; port ${port}`);
}

function serveText(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  const { snat, uplink } = value as ServePlan;
  const how = snat.type === "None" ? "forward" : snat.type === "Masquerade" ? "forward, masquerade" : `forward, source ${snat.address}`;
  return uplink.length === 0 ? how : `${how}; checks ${uplink.map((check) => JSON.stringify(check[check.type])).join(", ")}`;
}

function gatewaysText({ gateways, strategy }: PathPlan): string {
  const [going, staying] = [gateways.filter(({ retiring }) => retiring === true), gateways.filter(({ retiring }) => retiring !== true)];
  const names = (list: typeof gateways): string => list.map(({ node }) => node).join(", ");
  const first = staying.length === 0 ? "no gateway" : `${strategy === "Spread" ? "spread over" : "first of"} ${names(staying)}`;
  return going.length === 0 ? first : `${first}; ${names(going)} until established flows have moved`;
}

function lanText({ gateways, strategy, table, metric }: LanRoutePlan): string {
  const via = gateways.length === 1 ? gateways[0] : `${strategy === "Spread" ? "spread over" : "first of"} ${gateways.join(", ")}`;
  return `via ${via} table ${table}${metric === undefined ? "" : ` metric ${metric}`}`;
}
