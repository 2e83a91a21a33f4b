/**
 * Recovery: the store knows less than somebody saw (a restored backup, a copied file, lost writes). Until the agents have
 * reported, no peer is deleted, and no address or token is issued (DESIGN §5).
 */
import { X509Certificate } from "node:crypto";
import { IsthmusError } from "../../mesh/errors.ts";
import type { Resource } from "../../mesh/model/resources.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import type { AgentHello, Position } from "../../mesh/model/wire.ts";
import { NO_ALLOCATIONS, skip, type AllocationState } from "../../mesh/net/allocate.ts";
import { maxIndex } from "../../mesh/net/overlay.ts";
import { rangesOf } from "../join/decide.ts";
import { readmit } from "../join/readmit.ts";
import { NODE_DAYS } from "../pki/authority.ts";
import { membershipOf } from "../pki/certificates.ts";
import type { Principal } from "../pki/principal.ts";
import type { Seals } from "../pki/seals.ts";
import type { Store, StoreState } from "../store/types.ts";
import { commit, type Draft } from "./draft.ts";
import type { Events } from "./events.ts";
import { NETWORK, POOL_KEY, kindFolder, resourceKey } from "./keys.ts";
import type { Mirror } from "./mirror.ts";

/** Quiet time after the last readmitted node, within which agents with the longest back-off have called. */
const QUIET_MS = 30_000;

export interface Recovery {
  readonly active: boolean;
  /** Why it is, or was last, active: a clause. */
  readonly cause: string;
  /** Of the store; what an older one issued (tokens) is void. */
  readonly epoch: number;
  /** Looks at where an agent says it stands, and takes a forgotten node back. */
  onHello(hello: AgentHello, principal: Principal): Promise<void>;
  /** Whether this store took the place of that one, which was lost. */
  supersedes(lineage: string): boolean;
  /** A node connected and is on record. */
  reported(node: NodeName): void;
  /** The position with the seal that proves it was given out here. */
  sealed(position: Position): Position;
  /** The seal under a revision of the store as it stands. */
  sealOf(revision: number): string;
  /** Nodes that have not reported since the recovery began. */
  missing(): readonly string[];
  /** Ends it: by an admin, or when everybody has reported. */
  confirm(): Promise<void>;
  /** Ends it when nobody is missing any more; called now and then. */
  check(): Promise<void>;
}

export interface RecoveryOptions {
  readonly store: Store;
  readonly mirror: Mirror;
  readonly events: Events;
  readonly now: () => number;
  readonly newUid: () => string;
  readonly seals: Seals;
  readonly quietMs?: number;
  /** Why the store was in Recovery from the start, where it was: a clause. */
  readonly cause: string;
  /** Nodes that hold more than this store knows, with the views; `probe` asks them again. */
  readonly surplus: () => ReadonlyMap<NodeName, readonly string[]>;
  readonly probe: () => void;
  /** Called after it began or ended. */
  readonly onChange: (active: boolean) => void;
}

/** Whether `seen` is ahead of where we stand, or of another store altogether whose place we have not taken. */
export function isAhead(seen: Position, ours: Position, superseded: ReadonlySet<string>): boolean {
  if (seen.lineage !== ours.lineage) return !superseded.has(seen.lineage);
  return seen.epoch > ours.epoch || (seen.epoch === ours.epoch && seen.revision > ours.revision);
}

/** More than this was never lost: whoever says so is broken or lies (I11). */
const MAX_LEAD = { epoch: 1_000, revision: 1_000_000_000 };

/** @throws {IsthmusError} `BadRequest` when an agent says that it saw what no store of ours can have reached */
function requireSane(seen: Position, ours: Position, node: NodeName): void {
  const epochs = seen.lineage === ours.lineage ? seen.epoch - ours.epoch : 0;
  if (epochs <= MAX_LEAD.epoch && seen.revision - ours.revision <= MAX_LEAD.revision) return;
  throw new IsthmusError(
    "BadRequest",
    `node ${node} says that it saw revision ${seen.revision} of epoch ${seen.epoch}; this store is at revision ${ours.revision} of epoch ${ours.epoch}, so that cannot be`,
    { remedy: `Look at that machine; delete node ${node} if it is no longer trusted.` },
  );
}

/** What admins and tokens gave a node, in words. */
function grantsOf({ spec: { labels = {}, advertise = [] } }: Resource<"MeshNode">): string {
  const said = Object.entries(labels).map(([name, value]) => `label ${name}=${value}`);
  return [...said, ...advertise.map((cidr) => `prefix ${cidr}`)].join(", ");
}

const DAY_MS = 86_400_000;

/** Folder of the notes that name lost stores. */
const SUPERSEDED = "superseded/";

/**
 * Indexes that the lost writes may have given, or that the original of a copied store may be giving, to nodes that were not
 * heard here: they are not given before they have rested (I6). At most a quarter of what is left, so that a small range
 * still has some to give.
 */
const GAP = 256;

function leaveGap(draft: Draft, now: number): void {
  const network = draft.read(resourceKey("MeshNetwork", NETWORK)) as Resource<"MeshNetwork"> | undefined;
  if (network === undefined) return;
  const pool = (draft.read(POOL_KEY) as AllocationState | undefined) ?? NO_ALLOCATIONS;
  const fresh = Math.max(0, maxIndex(rangesOf(network)) + 1 - pool.next);
  draft.write(POOL_KEY, skip(pool, Math.min(GAP, Math.floor(fresh / 4)), now));
}

export async function openRecovery(options: RecoveryOptions): Promise<Recovery> {
  const { store, mirror, events, now, newUid, seals, onChange, quietMs = QUIET_MS } = options;
  let state: StoreState = await store.state();
  let active = state.recovering;
  let { cause } = options;
  const superseded = new Set([...(await store.notes(SUPERSEDED)).keys()].map((key) => key.slice(SUPERSEDED.length)));
  /** Foreign lineages that were met in this recovery; one by node, so that no node fills the store with them. */
  const foreign = new Map<NodeName, string>();
  /** On the clock of `performance.now`: setting the other one ends no Recovery before its time, and holds none up. */
  let lastNews = performance.now();
  let reported = new Set<string>();
  let beginning: Promise<void> = Promise.resolve();
  let ending: Promise<void> | undefined;

  async function begin(seen: Position, who: string): Promise<void> {
    state = await store.state();
    if (!isAhead(seen, state, superseded)) return;
    const known = seen.lineage === state.lineage ? Math.max(state.epoch, seen.epoch) : state.epoch;
    // Once in Recovery the tokens are void already: an epoch is only given up when somebody saw a higher one.
    const epoch = active && known === state.epoch ? state.epoch : known + 1;
    state = await store.raise({ epoch, revision: Math.max(seen.revision, state.revision) + 1, recovering: true });
    mirror.advance(state.revision);
    lastNews = performance.now();
    if (active) return;
    active = true;
    cause = `node ${who} has seen a newer state than this store holds: writes were lost`;
    reported = new Set();
    events.record(undefined, {
      type: "Warning",
      reason: "Recovery",
      message: `${cause}. Nothing is deleted and no address is issued until the nodes have reported.`,
      about: "controller",
    });
    onChange(true);
  }

  async function takeBack(hello: AgentHello, principal: Extract<Principal, { kind: "stranger" }>): Promise<void> {
    const { revision, result: node } = await commit(store, mirror, (draft) =>
      readmit(draft, {
        name: principal.name,
        keyHash: principal.keyHash,
        membership: membershipOf(principal.certificate),
        machineId: hello.machineId,
        bootId: hello.bootId,
        now: now(),
        newUid,
      }),
    );
    lastNews = performance.now();
    const granted = grantsOf(node);
    const issued = new Date(new X509Certificate(principal.certificate).validToDate.getTime() - NODE_DAYS * DAY_MS).toISOString();
    const since =
      granted === ""
        ? ""
        : `, with what it was granted by ${issued}: ${granted}. If an admin took some of that away later, it has to be taken away again`;
    events.record(undefined, {
      type: granted === "" ? "Normal" : "Warning",
      reason: "NodeReadmitted",
      message: `${principal.name} is back on record, by its certificate (revision ${revision})${since}`,
      about: `node/${principal.name}`,
    });
  }

  /** What nobody sealed starts nothing: the node keeps what it holds, by its own guard, and all goes on for the others. */
  function tellUnproven(node: NodeName): void {
    events.record(undefined, {
      type: "Warning",
      reason: "PositionUnproven",
      message: `${node} says that it saw a newer state than this store holds, which no controller of this network gave out; it is not believed`,
      about: `node/${node}`,
    });
  }

  function missing(): string[] {
    return [...mirror.folder(kindFolder("MeshNode")).values()]
      .map((item) => (item.value as Resource<"MeshNode">).metadata.name as string)
      .filter((name) => !reported.has(name))
      .sort();
  }

  function end(how: string): Promise<void> {
    return (ending ??= finish(how).finally(() => (ending = undefined)));
  }

  async function finish(how: string): Promise<void> {
    if (!active) return;
    const lineages = new Set(foreign.values());
    await store.note(new Map([...lineages].map((lineage) => [SUPERSEDED + lineage, new Date(now()).toISOString()])));
    for (const lineage of lineages) superseded.add(lineage);
    foreign.clear();
    // One transaction: an end that has to be tried again would leave a gap each time, and each takes of what is left.
    await commit(store, mirror, (draft) => leaveGap(draft, now()), { recovering: false });
    state = await store.state();
    // An agent that has seen still more came between.
    if (state.recovering) return;
    active = false;
    events.record(undefined, { type: "Normal", reason: "Recovered", message: how, about: "controller" });
    onChange(false);
  }

  return {
    get active() {
      return active;
    },
    get cause() {
      return cause;
    },
    get epoch() {
      return state.epoch;
    },
    async onHello(hello, principal) {
      const stands = await store.state();
      const { seen } = hello;
      const proven = seen !== undefined && seals.proves(seen);
      if (seen !== undefined && isAhead(seen, stands, superseded)) {
        requireSane(seen, stands, hello.node);
        if (proven) {
          if (seen.lineage !== stands.lineage) foreign.set(hello.node, seen.lineage);
          // One after the other. That one could not be written (a full disk) is that agent's answer, and nobody else's.
          beginning = beginning.catch(() => undefined).then(() => begin(seen, hello.node));
          await beginning;
        } else tellUnproven(hello.node);
      }
      if (principal.kind !== "stranger") return;
      const ours = await store.state();
      const wasBefore = proven && (seen.lineage === ours.lineage ? seen.epoch < ours.epoch : superseded.has(seen.lineage));
      if (active || wasBefore) await takeBack(hello, principal);
    },
    sealed: (position) => ({ ...position, seal: seals.seal(position) }),
    sealOf: (revision) => seals.seal({ lineage: state.lineage, epoch: state.epoch, revision }),
    supersedes: (lineage) => superseded.has(lineage),
    reported: (node) => void reported.add(node),
    missing,
    async confirm() {
      await end("an admin confirmed that all nodes have reported");
    },
    async check() {
      if (!active) return;
      options.probe();
      // A node that holds more than we know proves that something is still lost: then only a person may say that it is gone.
      if (performance.now() - lastNews > quietMs && missing().length === 0 && options.surplus().size === 0)
        await end("all nodes have reported, and none holds more than the store");
    },
  };
}
