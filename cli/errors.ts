/** How an error looks on a terminal: what, where, what to do. */
import { oneLine } from "../mesh/model/words.ts";
import type { FieldFault, IsthmusError } from "../mesh/errors.ts";

const LONGEST_VALUE = 120;

export function renderError(error: IsthmusError): string {
  const lines = [`error: ${shown(error.message)}`, ...error.faults.map((fault) => `  ${shown(renderFault(fault))}`)];
  if (error.remedy !== undefined) lines.push(`try: ${shown(error.remedy)}`);
  return `${lines.join("\n")}\n`;
}

/** `all.yaml, document 3: spec.gatways: unknown field (it is 5); did you mean "gateways"?` */
export function renderFault(fault: FieldFault): string {
  const place = fault.document === undefined ? [] : [placeText(fault, fault.document)];
  const path = fault.path === "" ? [] : [fault.path];
  const value = fault.value === undefined ? "" : ` (it is ${short(fault.value)})`;
  const meant = fault.suggestion === undefined || fault.message.includes("did you mean") ? "" : `; did you mean ${JSON.stringify(fault.suggestion)}?`;
  return [...place, ...path, `${fault.message}${value}${meant}`].join(": ");
}

/** As `placeText` of the parser, which is too heavy to be loaded for an error. */
function placeText({ file, item }: FieldFault, document: number): string {
  const parts = [file ?? [], `document ${document + 1}`, item === undefined ? [] : `item ${item + 1}`];
  return parts.flat().join(", ");
}

/** The words may be those of a node: without control characters, and no line of theirs begins where ours do. */
function shown(text: string): string {
  return text.trimEnd().split("\n").map(oneLine).join("\n  ");
}

function short(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > LONGEST_VALUE ? `${text.slice(0, LONGEST_VALUE - 1)}…` : text;
}
