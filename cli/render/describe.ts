/** `describe`: everything about one object, for people. */
import type { EventRecord } from "../../mesh/model/answers.ts";
import { oneLine } from "../../mesh/model/words.ts";
import { type AnyObject, at, conditions, labelsOf, list, text } from "./objects.ts";
import { renderTable } from "./table.ts";
import { ageSince } from "./time.ts";

const INDENT = 2;
const SHORT_LIST = 4;

export function renderDescription(object: AnyObject, events: readonly EventRecord[], now: number): string {
  const labels = Object.entries(labelsOf(object))
    .map(([key, value]) => `${key}=${value}`)
    .sort();
  const head = [
    ["Name:", object.metadata.name],
    ["Kind:", object.kind],
    ["API version:", object.apiVersion],
    ["Labels:", labels[0] ?? "<none>"],
    ...labels.slice(1).map((label) => ["", label]),
    ["Created:", created(object, now)],
  ];
  const status = Object.fromEntries(Object.entries(object.status ?? {}).filter(([key]) => key !== "conditions" && key !== "failing"));
  return [
    head.map(([name, value]) => `${(name ?? "").padEnd(14)}${value}\n`).join(""),
    "Spec:\n",
    tree(object.spec, INDENT),
    Object.keys(status).length === 0 ? "" : `Status:\n${tree(status, INDENT)}`,
    conditionTable(object, now),
    failingTable(object),
    eventTable(events, now),
  ].join("");
}

/** Events as a table, newest last. */
export function renderEvents(
  events: readonly EventRecord[],
  now: number,
  options: { readonly headers: boolean; readonly wide: boolean; readonly paint?: ((header: string, cell: string) => string) | undefined },
): string {
  return renderTable(
    [
      { header: "AGE", value: (event: EventRecord) => ageSince(event.at, now) + ((event.count ?? 1) > 1 ? ` (x${event.count})` : "") },
      { header: "TYPE", value: (event) => event.type },
      { header: "REASON", value: (event) => event.reason },
      { header: "ABOUT", value: (event) => event.about },
      { header: "NODE", value: (event) => event.node ?? "controller" },
      { header: "MESSAGE", value: (event) => event.message },
    ],
    events,
    options,
  ).text;
}

function created(object: AnyObject, now: number): string {
  const time = object.metadata.creationTimestamp;
  return time === undefined ? "<unknown>" : `${time} (${ageSince(time, now)} ago)`;
}

function conditionTable(object: AnyObject, now: number): string {
  const rows = conditions(object);
  if (rows.length === 0) return "";
  const table = renderTable(
    [
      { header: "TYPE", value: (row: (typeof rows)[number]) => row.type },
      { header: "STATUS", value: (row) => row.status },
      { header: "REASON", value: (row) => row.reason },
      { header: "SINCE", value: (row) => ageSince(row.lastTransitionTime, now) },
      { header: "MESSAGE", value: (row) => row.message ?? "" },
    ],
    rows,
    { headers: true, wide: true },
  );
  return `Conditions:\n${indent(table.text, INDENT)}`;
}

function failingTable(object: AnyObject): string {
  const rows = list(object, "status", "failing");
  if (rows.length === 0) return "";
  const columns = [
    { header: "NODE", value: (row: unknown) => text(row, "node") },
    { header: "REASON", value: (row: unknown) => text(row, "reason") },
    { header: "NEXT HOP", value: (row: unknown) => text(row, "nextHop") },
    { header: "MESSAGE", value: (row: unknown) => text(row, "message") },
  ];
  const failing = at(object, "status", "nodes", "failing");
  const more = typeof failing === "number" && failing > rows.length ? `  … and ${failing - rows.length} more\n` : "";
  return `Failing nodes:\n${indent(renderTable(columns, rows, { headers: true, wide: true }).text, INDENT)}${more}`;
}

function eventTable(events: readonly EventRecord[], now: number): string {
  return events.length === 0 ? "Events:       <none>\n" : `Events:\n${indent(renderEvents(events, now, { headers: true, wide: true }), INDENT)}`;
}

/** Nested values, one field a line; lists of plain values on one line while they are short. */
function tree(value: unknown, depth: number): string {
  const pad = " ".repeat(depth);
  if (Array.isArray(value)) return value.map((item) => listItem(item, depth)).join("");
  return Object.entries((value ?? {}) as Record<string, unknown>)
    .map(([key, item]) => {
      if (isPlain(item)) return `${pad}${oneLine(`${key}: ${String(item)}`)}\n`;
      if (Array.isArray(item) && item.every(isPlain) && item.length <= SHORT_LIST)
        return `${pad}${oneLine(`${key}: ${item.length === 0 ? "<none>" : item.join(", ")}`)}\n`;
      const inner = tree(item, depth + INDENT);
      return inner === "" ? `${pad}${oneLine(key)}: <none>\n` : `${pad}${oneLine(key)}:\n${inner}`;
    })
    .join("");
}

/** `- ` before the first line, the rest below it. */
function listItem(item: unknown, depth: number): string {
  const pad = " ".repeat(depth);
  return isPlain(item) ? `${pad}- ${oneLine(String(item))}\n` : tree(item, depth + INDENT).replace(/^ */, `${pad}- `);
}

function isPlain(value: unknown): boolean {
  return typeof value !== "object" || value === null;
}

function indent(block: string, by: number): string {
  return block.replace(/^(?=.)/gm, " ".repeat(by));
}
