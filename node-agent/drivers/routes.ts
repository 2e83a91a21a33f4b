/** Routes with our protocol, in every table. */
import { MAIN_TABLE } from "../../mesh/model/plan.ts";
import type { Cidr, IpAddress } from "../../mesh/model/scalars.ts";
import { PROTOCOL, routeKey, type Route, type RouteType } from "../../mesh/kernel/types.ts";
import { ABSENT, type IpLine, ipText, rowsOf } from "./ip.ts";

/** A row of `ip -N -j route`; in a listing filtered by protocol that field is missing. */
export interface RouteRow {
  readonly type?: string;
  readonly dst: string;
  readonly table?: string;
  readonly protocol?: string;
  readonly metric?: number;
  readonly nhid?: number;
  readonly gateway?: string;
  readonly dev?: string;
  readonly prefsrc?: string;
  readonly metrics?: readonly { readonly mtu?: number }[];
  readonly nexthops?: readonly { readonly gateway?: string; readonly dev?: string }[];
}

/** rtnetlink(7), `rtm_type`. */
const TYPES: Readonly<Record<string, RouteType>> = { "1": "unicast", "6": "blackhole", "7": "unreachable", "9": "throw" };

/** Looks at our routes. While `ip` says the same as last time they are the same object: thousands need not be read every half minute. */
export function createRoutesLook(): () => Promise<ReadonlyMap<string, Route>> {
  const filter = ["route", "show", "table", "all", "proto", String(PROTOCOL)];
  let last: { readonly said: readonly [string, string]; readonly routes: ReadonlyMap<string, Route> } | undefined;
  return async () => {
    const said = await Promise.all([ipText(["-4", ...filter]), ipText(["-6", ...filter])]);
    if (last === undefined || last.said[0] !== said[0] || last.said[1] !== said[1]) last = { said, routes: routesOf(said) };
    return last.routes;
  };
}

function routesOf([v4, v6]: readonly [string, string]): ReadonlyMap<string, Route> {
  const routes = [...rowsOf<RouteRow>(v4).map((row) => routeOf(row, 4)), ...rowsOf<RouteRow>(v6).map((row) => routeOf(row, 6))];
  return new Map(routes.map((route) => [routeKey(route), route]));
}

/** `default` and bare addresses become prefixes. */
export function prefixOf(dst: string, family: 4 | 6): Cidr {
  if (dst === "default") return (family === 4 ? "0.0.0.0/0" : "::/0") as Cidr;
  return (dst.includes("/") ? dst : `${dst}/${family === 4 ? 32 : 128}`) as Cidr;
}

export function routeOf(row: RouteRow, family: 4 | 6): Route {
  const type = TYPES[row.type ?? "1"] ?? "unicast";
  const base = {
    family,
    dst: prefixOf(row.dst, family),
    table: Number(row.table ?? MAIN_TABLE),
    type,
    metric: row.metric ?? 0,
    ...(row.prefsrc === undefined ? {} : { src: row.prefsrc as IpAddress }),
  };
  if (type !== "unicast") return base;
  // A route by nexthop id lists the devices behind it as well; the id is what was asked for.
  if (row.nhid !== undefined) return { ...base, nexthopId: row.nhid };
  if (row.nexthops !== undefined) {
    const multipath = row.nexthops.flatMap(({ gateway, dev }) =>
      gateway === undefined ? [] : [{ via: gateway as IpAddress, ...(dev === undefined ? {} : { dev }) }],
    );
    return { ...base, multipath };
  }
  const mtu = row.metrics?.find((one) => one.mtu !== undefined)?.mtu;
  return {
    ...base,
    ...(row.gateway === undefined ? {} : { via: row.gateway as IpAddress }),
    ...(row.dev === undefined ? {} : { dev: row.dev }),
    ...(mtu === undefined ? {} : { mtu }),
  };
}

export function routeLine(action: "add" | "replace" | "remove", route: Route): IpLine {
  const type = route.type === "unicast" ? "" : `${route.type} `;
  const head = `${type}${route.dst}`;
  const key = `table ${route.table} proto ${PROTOCOL}${route.metric === 0 ? "" : ` metric ${route.metric}`}`;
  if (action === "remove") return { line: `route del ${head} ${key}`, fine: ABSENT };
  const hops = route.multipath?.map(({ via, dev }) => `nexthop via ${via}${dev === undefined ? "" : ` dev ${dev}`}`).join(" ") ?? "";
  const way = [
    route.nexthopId === undefined ? "" : `nhid ${route.nexthopId}`,
    route.via === undefined ? "" : `via ${route.via}`,
    route.dev === undefined ? "" : `dev ${route.dev}`,
  ];
  const src = route.src === undefined ? "" : `src ${route.src}`;
  const mtu = route.mtu === undefined ? "" : `mtu ${route.mtu}`;
  return { line: ["route", action, head, ...way, key, src, mtu, hops].filter((part) => part !== "").join(" ") };
}
