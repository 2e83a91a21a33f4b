/** What this host must always reach: its controllers and services, by name or address, as part of what is known of the host (I9). */
import type { HostFacts } from "../mesh/kernel/types.ts";
import type { Kernel } from "./drivers/index.ts";
import { readHint } from "./files.ts";
import type { Keeper } from "./keeper.ts";
import {
  controllerServices,
  createNameKeeper,
  formatAnswers,
  type NameKeeper,
  type NameKeeperPorts,
  parseAnswers,
  type Service,
  withServices,
} from "./protected-names.ts";

export interface HostNeedsPorts extends Pick<NameKeeperPorts, "services" | "lookup"> {
  readonly kernel: Pick<Kernel, "hostFacts">;
  /** The last good answers. */
  readonly path: string;
  readonly file: Keeper;
  controllers(): readonly string[];
  /** A name means another address now. */
  onMoved(): void;
}

export interface HostNeeds {
  readonly names: NameKeeper;
  /** The kernel's facts, and what those names mean now. */
  facts(): Promise<HostFacts>;
}

export function createHostNeeds({ kernel, path, file, controllers, onMoved, ...ports }: HostNeedsPorts): HostNeeds {
  const services = (): Service[] => [...controllerServices([...controllers()]), ...ports.services()];
  const names = createNameKeeper({
    stored: readHint(path, parseAnswers, new Map()),
    services,
    lookup: (name, until) => ports.lookup(name, until),
    now: Date.now,
    onAnswers(answers, moved) {
      file.set(() => formatAnswers(answers));
      if (moved) onMoved();
    },
  });
  return {
    names,
    async facts() {
      const facts = await kernel.hostFacts();
      return { ...facts, protectedAddresses: withServices(facts.protectedAddresses, services(), names.answers) };
    },
  };
}
