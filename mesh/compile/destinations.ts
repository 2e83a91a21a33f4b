/** Destinations as intents write them → those that take effect, and why the others do not (I9). */
import type { Cidr } from "../model/scalars.ts";
import { familyOf, type Family } from "../net/ip.ts";
import { hasPrefix, prefixSet, subtract, toCidrs, touches, type PrefixSet } from "../net/prefix-set.ts";
import { controllerAddress, SPECIAL_RANGES, type Context } from "./context.ts";
import type { CompileCondition } from "./types.ts";
import { count } from "../model/words.ts";

export interface Destinations {
  /** Sorted by text, each once. */
  readonly cidrs: readonly Cidr[];
  readonly condition: CompileCondition;
}

export interface DestinationIntent {
  readonly destinations: readonly Cidr[];
  readonly excludedDestinations?: readonly Cidr[] | undefined;
}

/** A reason against one destination; undefined when there is none. */
export type Objection = (cidr: Cidr) => string | undefined;

/** How many destinations a message names. */
const NAMED = 5;

/**
 * Drops destinations that lie inside protected ranges, and cuts the exclusions out. A destination that is merely wider than
 * a protected range stays as it is: agents protect what lies inside it by more specific routes. What no exclusion touches
 * stays as written; the rest becomes the fewest prefixes.
 */
export function resolveDestinations(context: Context, intent: DestinationIntent, object: Objection = () => undefined): Destinations {
  const known = resolved.get(intent);
  if (known?.reserved === context.reserved) return known.result;
  const result = resolve(context, intent, object);
  resolved.set(intent, { reserved: context.reserved, result });
  return result;
}

/** By the spec itself, which also decides the objection: thousands of prefixes are not parsed again because a node joined. */
const resolved = new WeakMap<DestinationIntent, { readonly reserved: PrefixSet; readonly result: Destinations }>();

function resolve(context: Context, intent: DestinationIntent, object: Objection): Destinations {
  const refused: string[] = [];
  const accepted: Cidr[] = [];
  for (const cidr of new Set(intent.destinations)) {
    const reason = protectedReason(context, cidr) ?? object(cidr);
    if (reason === undefined) accepted.push(cidr);
    else refused.push(`${cidr} ${reason}`);
  }
  const cidrs = [...new Set(exclude(accepted, intent.excludedDestinations ?? []))].sort();
  return { cidrs, condition: conditionOf(intent, cidrs, refused, coveredBy(context, cidrs)) };
}

/** The destinations without the excluded addresses. */
function exclude(destinations: readonly Cidr[], excluded: readonly Cidr[]): readonly Cidr[] {
  if (excluded.length === 0) return destinations;
  const holes = prefixSet(excluded);
  const touched = destinations.filter((cidr) => touches(holes, cidr));
  if (touched.length === 0) return destinations;
  const whole = destinations.filter((cidr) => !touches(holes, cidr));
  return [...whole, ...toCidrs(subtract(prefixSet(touched), holes))];
}

/** The families of these destinations that no gateway address can carry. */
export function noGatewayOfFamily(gateways: readonly string[]): Objection {
  const families = new Set<Family>(gateways.map(familyOf));
  return (cidr) => (families.has(familyOf(cidr)) ? undefined : `has no gateway of its family (IPv${familyOf(cidr)})`);
}

function protectedReason(context: Context, cidr: Cidr): string | undefined {
  const { overlay, reserved } = context;
  if (!hasPrefix(reserved, cidr)) return undefined;
  if (hasPrefix(overlay, cidr)) return "lies inside the overlay's own ranges";
  if (hasPrefix(SPECIAL_RANGES, cidr)) return "is a loopback, link-local or multicast range";
  return "is protected: a controller, or ranges that never leave a node";
}

/** What lies inside destinations and is kept out of them on every node: said, because nobody reads it in the routes. */
function coveredBy(context: Context, cidrs: readonly Cidr[]): string {
  const { overlay, reserved, network } = context;
  const wide = cidrs.filter((cidr) => touches(reserved, cidr));
  if (wide.length === 0) return "";
  const kept = [
    ...(wide.some((cidr) => touches(overlay, cidr)) ? ["the overlay's own ranges"] : []),
    ...(wide.some((cidr) => touches(SPECIAL_RANGES, cidr)) ? ["loopback, link-local and multicast"] : []),
    ...network.controllers
      .filter((controller) => controllerAddress(controller).some((host) => wide.some((cidr) => touches(prefixSet([cidr]), host))))
      .map((controller) => `the controller ${controller}`),
  ];
  const named = wide.slice(0, NAMED).join(", ") + (wide.length > NAMED ? ` and ${wide.length - NAMED} more` : "");
  return `; ${named} covers ${kept.join(", ")}, which stay out of it, as does each node's own network`;
}

function conditionOf(intent: DestinationIntent, cidrs: readonly Cidr[], refused: string[], covered: string): CompileCondition {
  const type = "DestinationsAccepted";
  if (refused.length > 0) {
    const named = refused.sort().slice(0, NAMED).join("; ");
    const more = refused.length > NAMED ? `; and ${refused.length - NAMED} more` : "";
    return {
      type,
      status: "False",
      reason: "SomeRefused",
      message: `${refused.length} of ${count(intent.destinations.length, "destination")} ${refused.length === 1 ? "has" : "have"} no effect: ${named}${more}`,
    };
  }
  if (cidrs.length === 0) return { type, status: "False", reason: "NoDestinations", message: "nothing is left after the exclusions" };
  return { type, status: "True", reason: "Accepted", message: `${count(cidrs.length, "destination")}${covered}` };
}
