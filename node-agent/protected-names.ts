/**
 * What no plan may cut off (I9) but is written as a name: controllers, time servers, the Kubernetes API. Names are resolved
 * beside the reconciler, which never waits for DNS, and the last good answers are on disk: a boot with the controller and
 * DNS dead protects the same addresses as before. The decisions are pure; `createNameKeeper` is the loop around them.
 */
import { isIP } from "node:net";
import { z } from "zod";
import type { HostFacts } from "../mesh/kernel/types.ts";
import type { IpAddress } from "../mesh/model/scalars.ts";
import { canonicalIp } from "../mesh/net/ip.ts";
import { pause } from "./backoff.ts";
import { splitAddress } from "./contact.ts";

/** An address or a host name, and what it is to this node. */
export interface Service {
  readonly host: string;
  readonly why: string;
  /** A good answer is not asked for again so soon; a minute when absent. */
  readonly restMs?: number;
}

/** By name: addresses, the newest first, each with the time (ms since 1970) of the last answer that held it. */
export type Answers = ReadonlyMap<string, readonly { readonly address: IpAddress; readonly seen: number }[]>;

type Protected = HostFacts["protectedAddresses"];

/** Names with turning answers (pools of time servers): the newest addresses are kept. */
const MOST_ADDRESSES = 16;
/** An address that good answers no longer hold stays protected for so long: connections to it may still live. */
const FORGET_MS = 24 * 3_600_000;
/** An equal answer is news, and a write to disk, only so often. */
const NEWS_MS = 3_600_000;
const ROUND_MS = 60_000;
const RETRY_MS = 15_000;
const LOOKUP_MS = 5_000;

/** Controllers as services, without their ports. */
export function controllerServices(controllers: readonly string[]): Service[] {
  return [...new Set(controllers)].flatMap((controller) => {
    try {
      return [{ host: splitAddress(controller).host, why: `the controller ${controller}` }];
    } catch {
      return [];
    }
  });
}

/** Host names among the services, each once. */
export function namesOf(services: readonly Service[]): string[] {
  return [...new Set(services.map(({ host }) => host.toLowerCase()).filter(isName))];
}

/**
 * The answers after a good one: its addresses first, earlier ones kept for a day. An empty answer changes nothing, and
 * neither does one that says again what was heard within the hour.
 */
export function remember(known: Answers, name: string, answer: readonly string[], now: number): Answers {
  const fresh = [...new Set(answer.flatMap(protectable))].map((address) => ({ address, seen: now }));
  if (fresh.length === 0) return known;
  const before = known.get(name) ?? [];
  const earlier = before.filter(({ address, seen }) => !fresh.some((one) => one.address === address) && now - seen < FORGET_MS);
  const next = [...fresh, ...earlier].slice(0, MOST_ADDRESSES);
  const heard = fresh.every(({ address }) => before.some((one) => one.address === address && now - one.seen < NEWS_MS));
  return heard && next.length === before.length ? known : new Map([...known, [name, next]]);
}

/** Only what is still named. */
export function pruned(known: Answers, names: readonly string[]): Answers {
  return [...known.keys()].every((name) => names.includes(name)) ? known : new Map([...known].filter(([name]) => names.includes(name)));
}

/** Protected addresses with those of the services among them; sorted, so that equal facts are equal text. */
export function withServices(known: Protected, services: readonly Service[], answers: Answers): Protected {
  const found = new Map<IpAddress, string>(known.map(({ address, why }) => [address, why]));
  for (const { host, why } of services) {
    const addresses = isName(host) ? (answers.get(host.toLowerCase()) ?? []).map(({ address }) => address) : protectable(host);
    for (const address of addresses) if (!found.has(address)) found.set(address, why);
  }
  return [...found].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)).map(([address, why]) => ({ address, why }));
}

const Stored = z.record(z.string(), z.array(z.object({ address: z.string(), seen: z.number() })));

export function formatAnswers(answers: Answers): string {
  return `${JSON.stringify(Object.fromEntries(answers))}\n`;
}

/** @throws where it is not what `formatAnswers` writes */
export function parseAnswers(value: unknown): Answers {
  const rows = Object.entries(Stored.parse(value));
  return new Map(
    rows.map(([name, list]) => [name, list.flatMap(({ address, seen }) => protectable(address).map((one) => ({ address: one, seen })))]),
  );
}

export interface NameKeeper {
  readonly answers: Answers;
  /** A verified controller was reached there: as good as an answer of DNS, and known without it. */
  contact(controller: string, address: string): void;
  /** The names may have changed: they are looked at now. */
  wake(): void;
  run(signal: AbortSignal): Promise<void>;
}

export interface NameKeeperPorts {
  /** Answers of an earlier run. */
  readonly stored: Answers;
  services(): readonly Service[];
  /** All addresses of a name; takes as long as the host's resolver does, or until the signal. */
  lookup(name: string, until: AbortSignal): Promise<readonly string[]>;
  /** Milliseconds since 1970. */
  now(): number;
  /** Addresses came or went; also called when only their times are newer. */
  onAnswers(answers: Answers, moved: boolean): void;
  /** How long one name may hold up the others. */
  readonly lookupMs?: number;
}

export function createNameKeeper(ports: NameKeeperPorts): NameKeeper {
  let answers = ports.stored;
  let woken = new AbortController();
  /** A lookup that outlasts its turn goes on, because a second resolver may still answer; no other starts beside it. */
  let stuck: Promise<unknown> | undefined;
  const tried = new Map<string, number>();
  /** When a name was answered last. */
  const answered = new Map<string, number>();
  let turn = 0;

  const put = (next: Answers): void => {
    if (next === answers) return;
    const moved = addressText(next) !== addressText(answers);
    answers = next;
    ports.onAnswers(next, moved);
  };

  /** Whether every name was answered. */
  const round = async (signal: AbortSignal): Promise<boolean> => {
    const wanted = ports.services();
    const names = namesOf(wanted);
    put(pruned(answers, names));
    const rest = new Map(wanted.map(({ host, restMs = 0 }) => [host.toLowerCase(), restMs]));
    const due = names.filter((name) => Math.abs(ports.now() - (answered.get(name) ?? -Infinity)) >= (rest.get(name) ?? 0));
    let all = true;
    // Those that waited longest come first, so that a name that hangs does not keep the others from their turn.
    for (const name of due.toSorted((a, b) => (tried.get(a) ?? 0) - (tried.get(b) ?? 0))) {
      if (signal.aborted || stuck !== undefined) return false;
      tried.set(name, ++turn);
      const lookup = ports.lookup(name, signal).then(
        (found) => found,
        () => [],
      );
      const ended = new AbortController();
      void lookup.then(() => ended.abort());
      await pause(ports.lookupMs ?? LOOKUP_MS, signal, ended.signal);
      if (ended.signal.aborted) {
        const found = await lookup;
        if (found.length > 0) answered.set(name, ports.now());
        else all = false;
        put(remember(answers, name, found, ports.now()));
        continue;
      }
      stuck = lookup.then((found) => {
        stuck = undefined;
        put(remember(answers, name, found, ports.now()));
        woken.abort();
      });
    }
    return all;
  };

  return {
    get answers() {
      return answers;
    },
    contact(controller, address) {
      const name = namesOf(controllerServices([controller]))[0];
      if (name !== undefined) put(remember(answers, name, [address], ports.now()));
    },
    wake: () => woken.abort(),
    async run(signal) {
      while (!signal.aborted) {
        woken = new AbortController();
        const all = await round(signal);
        await pause(all ? ROUND_MS : RETRY_MS, signal, woken.signal);
      }
    },
  };
}

function addressText(answers: Answers): string {
  const rows = [...answers].map(
    ([name, list]) =>
      `${name} ${list
        .map(({ address }) => address)
        .toSorted()
        .join()}`,
  );
  return rows.toSorted().join("\n");
}

function isName(host: string): boolean {
  return isIP(host) === 0 && host.length <= 253 && /^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?$/i.test(host);
}

/** The address in canonical text; nothing where it is none, or this host itself. */
function protectable(text: string): IpAddress[] {
  const ip = canonicalIp(text.replace(/^::ffff:(?=\d+\.)/i, ""));
  return !ip.ok || /^(127\.|::1$|::$|0\.0\.0\.0$)/.test(ip.text) ? [] : [ip.text as IpAddress];
}
