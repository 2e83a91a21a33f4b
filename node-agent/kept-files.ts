/** What the running agent keeps on disk: to boot without a controller, and to go on as it was. */
import type { SetCondition } from "./conditions.ts";
import type { Places } from "./files.ts";
import { createKeeper, type Keeper } from "./keeper.ts";

const AFTER_MS = 100;
const KEPT = ["plan", "links", "choices", "names", "mtu"] as const satisfies readonly (keyof Places)[];
const CONDITIONS = {
  plan: "PlanNotStored",
  links: "LinksNotStored",
  choices: "ChoicesNotStored",
  names: "NamesNotStored",
  mtu: "MtuNotStored",
} as const;

export type KeptFiles = Readonly<Record<(typeof KEPT)[number], Keeper>> & {
  /** Writes what is waiting, before the process ends. */
  flush(): void;
};

/** A file that cannot be written is a condition of the node until it can. */
export function keepFiles(at: Places, condition: SetCondition, log: (line: string) => void): KeptFiles {
  const keeper = (name: (typeof KEPT)[number]): Keeper =>
    createKeeper({
      path: at[name],
      afterMs: AFTER_MS,
      onResult(error) {
        condition(CONDITIONS[name], error?.code ?? "", error?.message);
        if (error !== undefined) log(error.message);
      },
    });
  const files = { plan: keeper("plan"), links: keeper("links"), choices: keeper("choices"), names: keeper("names"), mtu: keeper("mtu") };
  return {
    ...files,
    flush() {
      for (const name of KEPT) files[name].flush();
    },
  };
}
