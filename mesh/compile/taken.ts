/** Destinations of an intent that an older one has on some of its nodes already: there the older one keeps them. Pure. */
import { byAge, MAIN_TABLE } from "../model/plan.ts";
import type { CompileOutput, IntentCompileStatus } from "./types.ts";

export interface Taken {
  readonly destination: string;
  /** The older intent's id. */
  readonly by: string;
}

/** @returns a question for many intents: what all of them want is looked at once */
export function takenDestinations({ views, intentStatus }: Pick<CompileOutput, "views" | "intentStatus">): (intent: IntentCompileStatus) => Taken[] {
  const byId = new Map<string, Held>();
  const byKey = new Map<string, Held[]>();
  for (const { id, nodes } of intentStatus.values()) {
    const view = id === undefined ? undefined : views.get(id);
    const plan = (view?.get("path") ?? view?.get("lan")) as { readonly created: number; readonly table?: number } | undefined;
    if (id === undefined || view === undefined || plan === undefined) continue;
    const held: Held = { id, nodes, created: plan.created, table: plan.table ?? MAIN_TABLE, wants: [...view.keys()].filter(isDestination) };
    byId.set(id, held);
    for (const key of held.wants) {
      const others = byKey.get(key);
      if (others === undefined) byKey.set(key, [held]);
      else others.push(held);
    }
  }
  return ({ id }) => {
    const own = id === undefined ? undefined : byId.get(id);
    if (own === undefined) return [];
    const nodes = new Set<string>(own.nodes);
    const keeps = (other: Held): boolean => other.table === own.table && byAge(other, own) < 0 && other.nodes.some((node) => nodes.has(node));
    return own.wants.flatMap((key) => {
      const by = byKey.get(key)?.find(keeps)?.id;
      return by === undefined ? [] : [{ destination: key.slice(2), by }];
    });
  };
}

interface Held {
  readonly id: string;
  readonly nodes: readonly string[];
  readonly created: number;
  readonly table: number;
  /** Keys of its destinations. */
  readonly wants: readonly string[];
}

function isDestination(key: string): boolean {
  return key.startsWith("d/");
}
