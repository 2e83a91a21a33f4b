/** `status` on a node. Reads what the agent's socket answers; a missing part is left out. */
import { count } from "../../mesh/model/words.ts";
import { at, list, strings, text } from "./objects.ts";
import type { Style, styler } from "./style.ts";
import { type Column, renderTable } from "./table.ts";
import { ageSince, ageText } from "./time.ts";

type Paint = ReturnType<typeof styler>;

const RECENT_EVENTS = 8;

export function renderStatus(status: unknown, now: number, paint: Paint): string {
  const blocks = [
    head(status, now, paint),
    ...[conditions(status, paint), peers(status), links(status, now, paint), paths(status, now), failing(status), events(status, now)].filter(
      (block) => block !== "",
    ),
  ];
  return blocks.join("\n");
}

function head(status: unknown, now: number, paint: Paint): string {
  const connected = at(status, "controller", "connected") === true;
  const address = text(status, "controller", "address");
  const since = at(status, "controller", "since");
  const ago = typeof since === "number" ? ` since ${ageSince(since, now)}` : "";
  const error = text(status, "controller", "error");
  const started = !list(status, "conditions").some((condition) => text(condition, "type") === "MachineChanged");
  const state = connected ? paint("green", "connected") : paint("yellow", "not connected");
  const controller = [
    `${state}${address === "" ? "" : ` to ${address}`}${ago}`,
    error === "" || connected ? "" : error,
    connected ? "" : started ? "forwarding and failing over go on without it" : "nothing is programmed",
  ]
    .filter((part) => part !== "")
    .join("; ");
  const position = at(status, "position");
  const applied = at(status, "applied");
  const plan =
    position === undefined
      ? "none yet"
      : `revision ${text(position, "revision")}${at(applied, "revision") === at(position, "revision") ? ", applied" : `, kernel at ${text(applied, "revision") || "none"}`}`;
  const lines: [string, string][] = [
    [
      "Node",
      `${paint("bold", text(status, "node"))}${text(status, "site") === "" ? "" : ` in site ${text(status, "site")}`}, network ${text(status, "network")}`,
    ],
    ["Overlay", strings(status, "overlay").join(", ")],
    ["Controller", controller],
    ["What to do", connected ? "" : text(status, "controller", "remedy")],
    ["Plan", plan],
    ["WireGuard", text(status, "wireguard")],
    [
      "Agent",
      `${text(status, "version")}${at(status, "started") === undefined ? "" : `, running for ${ageSince(at(status, "started") as number, now)}`}`,
    ],
    ["Drift healed", driftText(status, now)],
  ];
  return lines
    .filter(([, value]) => value !== "")
    .map(([name, value]) => `${name.padEnd(14)}${value}\n`)
    .join("");
}

function driftText(status: unknown, now: number): string {
  const healed = at(status, "drift", "count");
  const last = at(status, "drift", "at");
  if (typeof healed !== "number" || healed === 0) return "";
  return `${count(healed, "time")}${typeof last === "number" ? `, last ${ageSince(last, now)} ago` : ""}`;
}

function conditions(status: unknown, paint: Paint): string {
  const rows = list(status, "conditions");
  return block(
    "Conditions",
    rows,
    [
      { header: "TYPE", value: (row) => text(row, "type") },
      { header: "STATUS", value: (row) => text(row, "status") },
      { header: "REASON", value: (row) => text(row, "reason") },
      { header: "MESSAGE", value: (row) => text(row, "message") },
    ],
    colouring(paint, { True: "green", False: "yellow" }),
  );
}

function peers(status: unknown): string {
  return block("Peers", list(status, "peers"), [
    { header: "NODE", value: (row) => text(row, "node") },
    { header: "SITE", value: (row) => text(row, "site") },
    { header: "OVERLAY", value: (row) => strings(row, "overlay")[0] ?? "" },
    { header: "ENDPOINT", value: (row) => text(row, "endpoint") || (at(row, "behindNat") === true ? "behind NAT" : "") },
    { header: "HANDSHAKE", value: (row) => handshake(at(row, "handshakeAgeMs")) },
    { header: "RECEIVED", value: (row) => bytes(at(row, "rxBytes")) },
    { header: "SENT", value: (row) => bytes(at(row, "txBytes")) },
  ]);
}

function links(status: unknown, now: number, paint: Paint): string {
  return block(
    "Gateway links",
    list(status, "links"),
    [
      { header: "GATEWAY", value: (row) => text(row, "gateway") },
      { header: "INTERFACE", value: (row) => text(row, "interface") },
      { header: "STATUS", value: (row) => text(row, "verdict") },
      { header: "STATE", value: (row) => stateText(text(row, "state"), strings(row, "downPaths")) },
      { header: "RTT", value: (row) => milliseconds(at(row, "rttMs")) },
      { header: "SINCE", value: (row) => ageSince(at(row, "since") as number | undefined, now) },
    ],
    colouring(paint, { Up: "green", Down: "red", Unknown: "yellow" }),
  );
}

/** What a gateway says of itself, and for which paths its own uplink checks fail. */
function stateText(state: string, downPaths: readonly string[]): string {
  return downPaths.length === 0 ? state : `${state} (not for ${downPaths.join(", ")})`;
}

function paths(status: unknown, now: number): string {
  return block("Paths", list(status, "paths"), [
    { header: "PATH", value: (row) => text(row, "id") },
    { header: "GATEWAY", value: (row) => strings(row, "active").join(",") },
    { header: "WHY", value: (row) => text(row, "reason") },
    { header: "SINCE", value: (row) => ageSince(at(row, "since") as number | undefined, now) },
  ]);
}

function failing(status: unknown): string {
  const rows = Object.entries((at(status, "results") ?? {}) as Record<string, unknown>).filter(([, result]) => at(result, "ok") === false);
  return block("Failing", rows, [
    { header: "RESOURCE", value: ([id]) => id },
    { header: "REASON", value: ([, result]) => text(result, "reason") },
    { header: "MESSAGE", value: ([, result]) => text(result, "message") },
  ]);
}

function events(status: unknown, now: number): string {
  return block("Events", list(status, "events").slice(-RECENT_EVENTS), [
    { header: "AGE", value: (row) => ageSince(at(row, "at") as number, now) },
    { header: "REASON", value: (row) => text(row, "reason") },
    { header: "ABOUT", value: (row) => text(row, "about") },
    { header: "MESSAGE", value: (row) => text(row, "message") },
  ]);
}

function block<T>(title: string, rows: readonly T[], columns: readonly Column<T>[], paint?: (header: string, cell: string) => string): string {
  return rows.length === 0 ? "" : `${title}:\n${renderTable(columns, rows, { headers: true, wide: true, paint }).text.replace(/^(?=.)/gm, "  ")}`;
}

function colouring(paint: Paint, styles: Readonly<Record<string, Style>>): (header: string, cell: string) => string {
  return (header, cell) => {
    const style = header === "STATUS" ? styles[cell] : undefined;
    return style === undefined ? cell : paint(style, cell);
  };
}

function handshake(age: unknown): string {
  return typeof age === "number" ? `${ageText(age)} ago` : "never";
}

function milliseconds(value: unknown): string {
  return typeof value === "number" ? `${value < 10 ? value.toFixed(1) : Math.round(value)} ms` : "";
}

function bytes(value: unknown): string {
  if (typeof value !== "number") return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, value < 1 ? 0 : Math.floor(Math.log2(value) / 10));
  const scaled = value / 1024 ** power;
  return `${power === 0 || scaled >= 100 ? Math.round(scaled) : scaled.toFixed(1)} ${units[power]}`;
}
