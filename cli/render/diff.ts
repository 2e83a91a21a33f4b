/** `diff`: node by node, what would change. */
import type { Change, NodeDiff } from "../../mesh/model/answers.ts";
import { count, oneLine } from "../../mesh/model/words.ts";
import type { styler } from "./style.ts";

const SIGNS = { add: "+", remove: "-", change: "~" } as const;
const COLOURS = { add: "green", remove: "red", change: "yellow" } as const;

export function renderDiff(nodes: readonly NodeDiff[], style: ReturnType<typeof styler>): string {
  const changed = nodes.filter((node) => node.changes.length > 0);
  const shown = nodes.filter((node) => node.changes.length > 0 || refusal(node) !== undefined);
  const total = changed.reduce((sum, node) => sum + node.changes.length, 0);
  if (shown.length === 0) return "";
  const blocks = shown.map((node) => {
    const note = node.source === "plan" ? style("dim", ` (from the plan${node.note === undefined ? "" : `: ${oneLine(node.note)}`})`) : "";
    const refused = refusal(node);
    const warning = refused === undefined ? "" : `  ${style("yellow", `! ${oneLine(refused)}`)}\n`;
    return `${style("bold", `node ${node.node}`)}${note}\n${node.changes.map((change) => line(change, style)).join("")}${warning}`;
  });
  return `${blocks.join("\n")}\n${count(total, "change")} on ${count(changed.length, "node")}\n`;
}

/** What the node would not route. */
function refusal(node: NodeDiff): string | undefined {
  return node.source === "agent" ? node.note : undefined;
}

function line(change: Change, style: ReturnType<typeof styler>): string {
  const moved =
    change.action === "change" && (change.from !== undefined || change.to !== undefined)
      ? `: ${change.from ?? "nothing"} → ${change.to ?? "nothing"}`
      : detail(change);
  return `  ${style(COLOURS[change.action], `${SIGNS[change.action]} ${change.area.padEnd(7)} ${oneLine(change.what + moved)}`)}\n`;
}

function detail(change: Change): string {
  const value = change.action === "remove" ? change.from : change.to;
  return value === undefined ? "" : ` ${value}`;
}
