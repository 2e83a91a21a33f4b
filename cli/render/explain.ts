/** `explain NODE DESTINATION`: the way of a packet, hop by hop, and why not another. */
import type { Explanation } from "../../mesh/model/answers.ts";
import { MAIN_TABLE } from "../../mesh/model/plan.ts";
import type { styler } from "./style.ts";
import { renderTable } from "./table.ts";
import { ageSince } from "./time.ts";

const VERDICTS: Readonly<Record<Explanation["verdict"], string>> = {
  Local: "is the node's own",
  Mesh: "is a node of the mesh",
  Gateway: "goes over a gateway link",
  Lan: "goes through a router on the LAN",
  Underlay: "is not routed by Isthmus: it leaves by the underlay",
  Protected: "is protected and never steered: it leaves by the underlay",
  Unreachable: "is unreachable",
};

/** Of what is unreachable, what is missing. */
function verdictOf({ verdict, owner, message }: Explanation): string {
  if (verdict !== "Unreachable") return VERDICTS[verdict];
  if (owner !== undefined) return `${VERDICTS.Unreachable}: no gateway may carry it now`;
  return `${VERDICTS.Unreachable}: ${message ?? "no intent steers it here, and this node has no route to it"}`;
}

export function renderExplanation(answer: Explanation, now: number, style: ReturnType<typeof styler>): string {
  return [
    `${style("bold", answer.node)} → ${style("bold", answer.destination)}: ${verdictOf(answer)}\n`,
    facts(answer, now),
    answer.hops.length === 0 ? "" : `\n${hops(answer)}`,
    candidates(answer, now),
    kernel(answer, style),
  ].join("");
}

function facts(answer: Explanation, now: number): string {
  const since = answer.since === undefined ? "" : `, since ${ageSince(answer.since, now)}`;
  const why = answer.reason === undefined ? undefined : `${answer.reason}${answer.message === undefined ? "" : ` (${answer.message})`}${since}`;
  const lines: [string, string | undefined][] = [
    ["intent", answer.owner === undefined ? undefined : `${answer.owner}${answer.prefix === undefined ? "" : ` by ${answer.prefix}`}`],
    ["why", why],
    [
      "source",
      answer.snat === undefined
        ? undefined
        : answer.snat === "None"
          ? "kept (no translation)"
          : answer.snat === "Masquerade"
            ? "the gateway's address (masquerade)"
            : answer.snat,
    ],
    ["seen as", answer.exit],
  ];
  return lines.flatMap(([name, value]) => (value === undefined ? [] : [`  ${name.padEnd(9)}${value}\n`])).join("");
}

function hops(answer: Explanation): string {
  return answer.hops
    .map((hop, i) => {
      const details = [
        hop.dev === undefined ? "" : `dev ${hop.dev}`,
        hop.via === undefined ? "" : `via ${hop.via}`,
        hop.table === undefined ? "" : `table ${hop.table === MAIN_TABLE ? "main" : hop.table}`,
      ].filter((part) => part !== "");
      return `  ${i + 1}. ${hop.at}: ${hop.what}${details.length === 0 ? "" : ` (${details.join(", ")})`}\n`;
    })
    .join("");
}

function candidates(answer: Explanation, now: number): string {
  const rows = answer.candidates ?? [];
  if (rows.length === 0) return "";
  const table = renderTable(
    [
      { header: "GATEWAY", value: (row: (typeof rows)[number]) => row.node },
      { header: "USED", value: (row) => (row.active ? "yes" : "no") },
      { header: "WHY", value: (row) => (row.message === undefined ? row.why : `${row.why}: ${row.message}`) },
      { header: "SINCE", value: (row) => (row.since === undefined ? "" : ageSince(row.since, now)) },
    ],
    rows,
    { headers: true, wide: true },
  );
  return `\n${table.text.replace(/^(?=.)/gm, "  ")}`;
}

function kernel(answer: Explanation, style: ReturnType<typeof styler>): string {
  if (answer.kernel === undefined) return "";
  const { text, agrees, note } = answer.kernel;
  const verdict = agrees ? style("green", "as planned") : style("red", "NOT as planned");
  return `\n  kernel   ${text.trim().replace(/\s+/g, " ")}\n           ${verdict}${note === undefined ? "" : `: ${note}`}\n`;
}
