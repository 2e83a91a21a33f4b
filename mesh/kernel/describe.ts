/** Operations as rows for people: `isthmus diff`, `isthmus explain`, logs. */
import { MAIN_TABLE, type Plan } from "../model/plan.ts";
import type { ChangeRow, Operation } from "./operations.ts";
import type { Nexthop, NftTable, Route, Rule, WgInterface, WgPeer } from "./types.ts";

const WG_KEY = /^[A-Za-z0-9+/]{43}=(?= on )/;

/** Rows that call peers by the names of their nodes: nobody knows a node by its key. */
export function describeFor({ peers }: Pick<Plan, "peers">): (operation: Operation) => ChangeRow[] {
  const names = new Map<string, string>([...peers].map(([name, { k }]) => [k, name]));
  return (operation) => describeOperation(operation).map((row) => ({ ...row, what: row.what.replace(WG_KEY, (key) => names.get(key) ?? key) }));
}

/** One row, or one per rule line and set where the nft table changes. */
export function describeOperation(operation: Operation): ChangeRow[] {
  switch (operation.op) {
    case "link.add":
      return [{ area: "link", action: "add", what: operation.link.name, to: linkText(operation.link) }];
    case "link.set":
      return [{ area: "link", action: "change", what: operation.link.name, from: linkText(operation.before), to: linkText(operation.link) }];
    case "link.remove":
      return [{ area: "link", action: "remove", what: operation.name }];
    case "peer.add":
      return [{ area: "peer", action: "add", what: peerName(operation), to: peerText(operation.peer) }];
    case "peer.set":
      return [
        {
          area: "peer",
          action: "change",
          what: peerName(operation),
          from: peerText(operation.before),
          to: peerText({ ...(operation.before.endpoint === undefined ? {} : { endpoint: operation.before.endpoint }), ...operation.peer }),
        },
      ];
    case "peer.remove":
      return [{ area: "peer", action: "remove", what: `${operation.publicKey} on ${operation.link}` }];
    case "peer.reset":
      return [{ area: "peer", action: "change", what: peerName(operation), to: "new session" }];
    case "address.add":
      return [{ area: "address", action: "add", what: operation.address }];
    case "address.remove":
      return [{ area: "address", action: "remove", what: operation.address }];
    case "nexthop.replace":
      return [changed("nexthop", String(operation.nexthop.id), nexthopText(operation.nexthop), operation.before && nexthopText(operation.before))];
    case "nexthop.remove":
      return [{ area: "nexthop", action: "remove", what: String(operation.nexthop.id), from: nexthopText(operation.nexthop) }];
    case "route.add":
      return [{ area: "route", action: "add", what: routeName(operation.route), to: routeText(operation.route) }];
    case "route.replace":
      return [changed("route", routeName(operation.route), routeText(operation.route), operation.before && routeText(operation.before))];
    case "route.remove":
      return [{ area: "route", action: "remove", what: routeName(operation.route), from: routeText(operation.route) }];
    case "rule.add":
      return [{ area: "rule", action: "add", what: ruleText(operation.rule) }];
    case "rule.remove":
      return [{ area: "rule", action: "remove", what: ruleText(operation.rule) }];
    case "nft.replace":
      return tableRows(operation.before, operation.table);
    case "nft.elements":
      return [
        ...operation.remove.map((what) => element("remove", operation.set, what)),
        ...operation.add.map((what) => element("add", operation.set, what)),
      ];
    case "nft.remove":
      return [{ area: "nat", action: "remove", what: "table inet isthmus" }];
    case "sysctl.set":
      return [changed("link", `sysctl ${operation.name}`, operation.value, operation.before)];
    case "sysctl.restore":
      return [{ area: "link", action: "remove", what: `sysctl ${operation.name}`, to: "the value before" }];
    case "hosts.set":
      return hostRows(operation);
  }
}

function changed(area: ChangeRow["area"], what: string, to: string, from: string | undefined): ChangeRow {
  return from === undefined ? { area, action: "add", what, to } : { area, action: "change", what, from, to };
}

function linkText(link: WgInterface): string {
  return `port ${link.listenPort}, mtu ${link.mtu}, mark 0x${link.fwmark.toString(16)}, ${link.up ? "up" : "down"}`;
}

function peerName({ link, peer }: { link: string; peer: WgPeer }): string {
  return `${peer.publicKey} on ${link}`;
}

function peerText(peer: WgPeer): string {
  const endpoint = peer.endpoint === undefined ? "" : `, endpoint ${peer.endpoint}`;
  const preshared = peer.presharedKey === undefined ? "" : ", a preshared key";
  return `${peer.allowedIps.join(", ") || "nothing allowed"}${endpoint}${peer.keepalive > 0 ? `, keepalive ${peer.keepalive}` : ""}${preshared}`;
}

function nexthopText(nexthop: Nexthop): string {
  return nexthop.dev === undefined ? `group ${(nexthop.group ?? []).join(", ")}` : `dev ${nexthop.dev}`;
}

function routeName(route: Route): string {
  return `${route.dst} table ${tableName(route.table)} metric ${route.metric}`;
}

function routeText(route: Route): string {
  if (route.type !== "unicast") return route.type;
  const hops = route.multipath?.map(({ via }) => `via ${via}`).join(" and ");
  const way =
    hops ??
    (route.nexthopId === undefined
      ? [route.via === undefined ? "" : `via ${route.via}`, route.dev === undefined ? "" : `dev ${route.dev}`].filter((text) => text !== "").join(" ")
      : `nexthop ${route.nexthopId}`);
  const mtu = route.mtu === undefined ? "" : ` mtu ${route.mtu}`;
  return route.src === undefined ? way + mtu : `${way} src ${route.src}${mtu}`;
}

function ruleText(rule: Rule): string {
  const parts = [`IPv${rule.family} ${rule.priority}:`];
  if (rule.from !== undefined) parts.push(`from ${rule.from}`);
  if (rule.to !== undefined) parts.push(`to ${rule.to}`);
  if (rule.fwmark !== undefined) parts.push(`fwmark 0x${rule.fwmark.toString(16)}/0x${(rule.fwmask ?? 0xffffffff).toString(16)}`);
  if (rule.iif !== undefined) parts.push(`iif ${rule.iif}`);
  return [...parts, `lookup ${tableName(rule.table)}`].join(" ");
}

function tableName(table: number): string {
  return table === MAIN_TABLE ? "main" : String(table);
}

function element(action: "add" | "remove", set: string, what: string): ChangeRow {
  return { area: "nat", action, what: `${what} in ${set}` };
}

function tableRows(before: NftTable | undefined, after: NftTable): ChangeRow[] {
  const old = new Set(lines(before));
  const now = new Set(lines(after));
  return [
    ...[...old].filter((line) => !now.has(line)).map((what): ChangeRow => ({ area: "nat", action: "remove", what })),
    ...[...now].filter((line) => !old.has(line)).map((what): ChangeRow => ({ area: "nat", action: "add", what })),
  ];
}

/** Rules with the chain that they stand in, and elements with their set. */
function lines(table: NftTable | undefined): string[] {
  if (table === undefined) return [];
  let chain = "";
  const rules = table.body.split("\n").flatMap((raw) => {
    const line = raw.trim();
    const opened = /^chain (\S+) \{$/.exec(line)?.[1];
    if (opened !== undefined) chain = opened;
    return opened !== undefined || line === "}" || line === "" || line.startsWith("set ") ? [] : [`${chain}: ${line}`];
  });
  return [...rules, ...[...table.sets].flatMap(([set, elements]) => elements.map((one) => `${one} in ${set}`))];
}

function hostRows({ hosts, before }: Extract<Operation, { op: "hosts.set" }>): ChangeRow[] {
  const rows: ChangeRow[] = [];
  for (const [name, addresses] of hosts) {
    const from = before.get(name)?.join(", ");
    if (from !== addresses.join(", ")) rows.push(changed("address", `name ${name}`, addresses.join(", "), from));
  }
  for (const [name, addresses] of before)
    if (!hosts.has(name)) rows.push({ area: "address", action: "remove", what: `name ${name}`, from: addresses.join(", ") });
  return rows;
}
