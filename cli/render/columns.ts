/** What `get` shows of each kind. */
import type { Kind } from "../../mesh/model/resources.ts";
import { type AnyObject, at, condition, conditions, few, labelsOf, list, prefixes, strings, text } from "./objects.ts";
import type { Column } from "./table.ts";
import { ageSince, ageText } from "./time.ts";

/** What columns need besides the object. */
export interface ColumnContext {
  readonly now: number;
  /** All sites by name, where nodes are shown. */
  readonly sites: ReadonlyMap<string, AnyObject>;
  /** Every name with its kind before it, as when several kinds are shown. */
  readonly prefix?: string | undefined;
}

type Columns = readonly Column<AnyObject>[];

/** Columns of a kind, `-o wide` ones included. */
export function columnsOf(kind: Kind, context: ColumnContext): Columns {
  const name: Column<AnyObject> = { header: "NAME", value: (object) => `${context.prefix ?? ""}${object.metadata.name}` };
  const age: Column<AnyObject> = { header: "AGE", value: (object) => ageSince(object.metadata.creationTimestamp, context.now) };
  return [name, ...OWN[kind](context), age, ...TAIL[kind]];
}

const READY: Column<AnyObject> = { header: "READY", value: readyText };
const ACTIVE: Column<AnyObject> = { header: "ACTIVE", value: (object) => few(strings(object, "status", "active")) };
const STATUS: Column<AnyObject> = { header: "STATUS", value: intentStatus };
const wide = (column: Column<AnyObject>): Column<AnyObject> => ({ ...column, wide: true });

const OWN: { readonly [K in Kind]: (context: ColumnContext) => Columns } = {
  MeshNode: (context) => [
    { header: "SITE", value: (node) => text(node, "spec", "site") },
    { header: "LOCATION", value: (node) => labelsOf(node)["location"] ?? text(context.sites.get(text(node, "spec", "site")), "spec", "kind") },
    { header: "OVERLAY", value: (node) => strings(node, "status", "overlay")[0] ?? "" },
    { header: "ENDPOINT", wide: true, value: (node) => strings(node, "status", "endpoints")[0] ?? "" },
    { header: "HANDSHAKE", wide: true, value: handshakes },
    { header: "STATUS", value: nodeStatus },
  ],
  Site: () => [
    { header: "KIND", value: (site) => text(site, "spec", "kind") },
    { header: "REGION", value: (site) => text(site, "spec", "region") },
    { header: "ZONE", wide: true, value: (site) => text(site, "spec", "zone") },
    { header: "SUBNETS", value: (site) => prefixes(strings(site, "spec", "subnets")) },
    {
      header: "GATEWAYS",
      wide: true,
      value: (site) => few(Object.entries((at(site, "spec", "gateways") ?? {}) as Record<string, string>).map((one) => one.join("="))),
    },
    { header: "PRIORITY", wide: true, value: (site) => text(site, "spec", "priority") },
    { header: "NODES", value: readyText },
    { header: "STATUS", value: siteStatus },
  ],
  JoinToken: (context) => [
    { header: "SITE", value: (token) => text(token, "spec", "site") },
    { header: "USES", value: (token) => `${text(token, "status", "used") || "0"}/${text(token, "spec", "uses")}` },
    { header: "EXPIRES", value: (token) => expiryText(text(token, "spec", "expires"), context.now) },
    { header: "PATTERN", wide: true, value: (token) => text(token, "spec", "namePattern") },
    { header: "STATUS", value: (token) => text(token, "status", "state") || tokenStatus(token, context.now) },
  ],
  MeshRoute: () => [
    { header: "DESTINATIONS", value: (route) => prefixes(strings(route, "spec", "destinations")) },
    {
      header: "GATEWAYS",
      value: (route) => few(list(route, "spec", "gateways").map((gateway) => text(gateway, "address") || text(gateway, "node"))),
    },
    ACTIVE,
    READY,
    STATUS,
    { header: "STRATEGY", wide: true, value: (route) => text(route, "spec", "strategy") },
    { header: "HEALTH", wide: true, value: (route) => text(route, "spec", "health", "type") },
    { header: "TABLE", wide: true, value: (route) => text(route, "spec", "table") || "main" },
  ],
  StaticRoute: () => [
    { header: "DESTINATIONS", value: (route) => prefixes(strings(route, "spec", "destinations")) },
    { header: "GATEWAY", value: (route) => text(route, "spec", "gateway") },
  ],
  EgressGateway: () => [
    { header: "DESTINATIONS", value: (egress) => prefixes(strings(egress, "spec", "destinations")) },
    { header: "GATEWAYS", wide: true, value: (egress) => few(list(egress, "spec", "gateways").map(gatewayText)) },
    ACTIVE,
    { header: "SNAT", value: (egress) => text(egress, "spec", "snat", "address") || text(egress, "spec", "snat", "type") },
    READY,
    STATUS,
    { header: "STRATEGY", wide: true, value: (egress) => text(egress, "spec", "strategy") },
    { header: "FAILBACK", wide: true, value: (egress) => text(egress, "spec", "failback", "type") },
  ],
  VirtualIP: () => [
    { header: "ADDRESS", value: (vip) => few([text(vip, "spec", "address"), ...strings(vip, "spec", "addresses")]) },
    { header: "SCOPE", value: (vip) => text(vip, "spec", "scope") },
    { header: "MODE", value: (vip) => text(vip, "spec", "mode") },
    { header: "OWNER", value: (vip) => text(vip, "status", "owner") },
    STATUS,
    wide(READY),
  ],
  MeshCluster: () => [
    { header: "SITES", value: (cluster) => few(list(cluster, "spec", "sites").map((site) => text(site, "site"))) },
    { header: "SERVERS", wide: true, value: (cluster) => few(strings(cluster, "spec", "servers")) },
    STATUS,
  ],
  MeshNetwork: () => [
    { header: "OVERLAY", value: (network) => text(network, "spec", "overlay", "v4") },
    { header: "OVERLAY6", value: (network) => text(network, "spec", "overlay", "v6") },
    { header: "LINKS", wide: true, value: (network) => text(network, "spec", "links", "v4") },
    { header: "TOPOLOGY", value: (network) => text(network, "spec", "topology") },
    { header: "MTU", wide: true, value: (network) => text(network, "spec", "mtu") || "auto" },
  ],
};

/** Columns after AGE: as the DigitalOcean operator prints its four, with ours behind them. */
const TAIL: { readonly [K in Kind]: Columns } = {
  MeshNode: [],
  Site: [],
  JoinToken: [],
  MeshRoute: [],
  StaticRoute: [wide(READY), { header: "NODES", wide: true, value: failingNodes }],
  EgressGateway: [],
  VirtualIP: [],
  MeshCluster: [],
  MeshNetwork: [],
};

/** `Ready`, `NotReady`, `Revoked`, `Unknown`; with `,Draining` or `,Drained` while the node is cordoned, and `,NoPathTo` where two NATs part it from a peer. */
export function nodeStatus(node: AnyObject): string {
  const ready = condition(node, "Ready");
  const connected = at(node, "status", "connected");
  const state =
    ready === undefined
      ? connected === true
        ? "Ready"
        : connected === false
          ? "NotReady"
          : "Unknown"
      : ready.status === "True"
        ? "Ready"
        : ready.status === "False"
          ? ready.reason === "CertificateRevoked"
            ? "Revoked"
            : "NotReady"
          : "Unknown";
  const parted = condition(node, "NoPathTo");
  return [
    state,
    ...(at(node, "spec", "cordoned") === true ? [condition(node, "Drained")?.status === "True" ? "Drained" : "Draining"] : []),
    ...(parted?.status === "True" && parted.reason === "BothBehindNat" ? ["NoPathTo"] : []),
  ].join(",");
}

/** What the node said last; nothing while it says nothing. */
function handshakes(node: AnyObject): string {
  if (at(node, "status", "connected") === false) return "";
  const peers = at(node, "status", "handshakes", "peers");
  return typeof peers === "number" ? `${text(node, "status", "handshakes", "fresh")}/${peers}` : "";
}

function readyText(object: AnyObject): string {
  const total = at(object, "status", "nodes", "total");
  return typeof total === "number" ? `${text(object, "status", "nodes", "ready") || "0"}/${total}` : "";
}

/** `Ready`, `Conflict`, or the reason of the first condition that is not as it should be; then that some node cannot use a gateway. */
function intentStatus(object: AnyObject): string {
  const all = conditions(object);
  if (all.some((each) => each.type === "Conflict" && each.status === "True")) return "Conflict";
  const wrong =
    all.find((each) => each.type !== "Conflict" && each.type !== "GatewaysUsable" && each.status === "False") ??
    all.find((each) => each.type === "Ready" && each.status === "Unknown");
  const lacking = all.find((each) => each.type === "GatewaysUsable" && each.status === "False");
  const more = lacking === undefined || wrong !== undefined ? "" : `,${lacking.reason}`;
  return (wrong?.reason ?? (all.length === 0 ? "Pending" : "Ready")) + more;
}

/** `Ready`, `Degraded` while some of its nodes are not, `NotReady`, `Empty`; then what is wrong with its subnets. */
function siteStatus(site: AnyObject): string {
  const [total, ready] = [at(site, "status", "nodes", "total"), at(site, "status", "nodes", "ready")].map(Number) as [number, number];
  const state = Number.isNaN(total) ? "Unknown" : total === 0 ? "Empty" : ready === total ? "Ready" : ready === 0 ? "NotReady" : "Degraded";
  const wrong = conditions(site).filter(({ type, status }) => (type === "Conflict" ? status === "True" : type !== "Ready" && status === "False"));
  return [state, ...wrong.map(({ type, reason }) => (type === "Conflict" ? type : reason))].join(",");
}

function failingNodes(object: AnyObject): string {
  return few(list(object, "status", "failing").map((fault) => `${text(fault, "node")}:${text(fault, "reason")}`));
}

function gatewayText(gateway: unknown): string {
  const site = text(gateway, "site");
  if (site !== "") return `site ${site}`;
  return Object.entries((at(gateway, "nodeSelector") ?? {}) as Record<string, string>)
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
}

function expiryText(expires: string, now: number): string {
  const at = Date.parse(expires);
  if (Number.isNaN(at)) return expires;
  return at <= now ? `${ageText(now - at)} ago` : `in ${ageText(at - now)}`;
}

/** From a controller that does not say it. */
function tokenStatus(token: AnyObject, now: number): string {
  if (at(token, "status", "revoked") === true) return "Revoked";
  if (Date.parse(text(token, "spec", "expires")) <= now) return "Expired";
  return Number(text(token, "status", "used")) >= Number(text(token, "spec", "uses")) ? "Spent" : "Active";
}
