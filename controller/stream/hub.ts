/** Views and who holds them: fans changes out, and brings agents that come back up to date. */
import { type CompileOutput, type ViewChange } from "../../mesh/compile/types.ts";
import { diffViews } from "../../mesh/compile/views.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import type { AgentHello, Position } from "../../mesh/model/wire.ts";
import { messageFrame } from "./frame.ts";
import { createLiveView, type LiveView } from "./view-log.ts";

/** What the hub needs of a connection. */
export interface Receiver {
  readonly node: NodeName;
  readonly views: Set<string>;
  /** Views whose hash in a heartbeat was wrong. */
  readonly suspects: Set<string>;
  /** During a recovery: views in which the agent holds, or may hold, more than this store knows. */
  readonly surplus: Set<string>;
  write(frame: Buffer): void;
}

export interface Hub {
  readonly output: CompileOutput | undefined;
  /** Revision of the output. */
  readonly revision: number;
  view(id: string): LiveView | undefined;
  /** Takes the next output in and sends what changed; returns how many views changed. */
  publish(output: CompileOutput, revision: number): number;
  /** Greets an agent, and sends what it lacks. */
  attach(receiver: Receiver, hello: AgentHello, at: Position): void;
  detach(receiver: Receiver): void;
  /** Hashes of a heartbeat; for wrong ones the buckets are asked for. */
  checkHashes(receiver: Receiver, hashes: Readonly<Record<string, string>>): void;
  /** Answers bucket hashes. `fault`: a heartbeat had told of it, and something does differ. */
  answerBuckets(receiver: Receiver, view: string, hashes: readonly string[]): "fault" | "filled" | "same";
  setRecovering(recovering: boolean): void;
  /** During a recovery: nodes that hold more than this store knows, with the views. */
  surplus(): ReadonlyMap<NodeName, readonly string[]>;
  /** During a recovery: asks them again. */
  probeSurplus(): void;
}

export function createHub(options: { readonly network: string; readonly format: number; readonly now: () => number }): Hub {
  const live = new Map<string, LiveView>();
  const holders = new Map<string, Set<Receiver>>();
  const receivers = new Map<NodeName, Set<Receiver>>();
  let output: CompileOutput | undefined;
  let revision = 0;
  let recovering = false;

  function hold(receiver: Receiver, id: string): void {
    receiver.views.add(id);
    const set = holders.get(id) ?? new Set();
    holders.set(id, set);
    set.add(receiver);
  }

  function release(receiver: Receiver, id: string): void {
    receiver.views.delete(id);
    const set = holders.get(id);
    set?.delete(receiver);
    if (set?.size === 0) holders.delete(id);
  }

  function send(id: string, view: LiveView, change: ViewChange): void {
    const frame = view.apply(change, revision);
    const sent = recovering ? view.additions(change) : frame;
    if (sent !== undefined) for (const receiver of holders.get(id) ?? []) receiver.write(sent);
  }

  /** A view came or went for a node: said first, then filled. */
  function changeAudience(receiver: Receiver, wanted: readonly string[]): void {
    const add = wanted.filter((id) => !receiver.views.has(id));
    const drop = [...receiver.views].filter((id) => !wanted.includes(id)).sort();
    if (add.length === 0 && drop.length === 0) return;
    receiver.write(messageFrame({ t: "views", add, drop: recovering ? [] : drop }));
    for (const id of drop) release(receiver, id);
    for (const id of add) {
      hold(receiver, id);
      const view = live.get(id);
      if (view !== undefined) receiver.write(view.full());
    }
  }

  return {
    get output() {
      return output;
    },
    get revision() {
      return revision;
    },
    view: (id) => live.get(id),
    publish(next, at) {
      const before = output;
      const changes = diffViews(before, next);
      output = next;
      revision = Math.max(revision, at);
      for (const [id, change] of changes) {
        const view = live.get(id);
        const data = next.views.get(id);
        if (data === undefined) live.delete(id);
        else if (view === undefined) live.set(id, createLiveView(id, data, revision));
        else send(id, view, change);
      }
      for (const [id, data] of next.views) if (!live.has(id)) live.set(id, createLiveView(id, data, revision));
      for (const [node, set] of receivers) {
        const wanted = next.audience.get(node);
        // A node that is gone is told so by whoever took it out; it is not told to drop its plan.
        if (wanted === undefined || wanted === before?.audience.get(node)) continue;
        for (const receiver of set) changeAudience(receiver, wanted);
      }
      return changes.size;
    },
    attach(receiver, hello, at) {
      const wanted = output?.audience.get(receiver.node) ?? [];
      receivers.set(receiver.node, (receivers.get(receiver.node) ?? new Set()).add(receiver));
      receiver.write(messageFrame({ t: "hello", at, format: options.format, network: options.network, views: wanted, recovering, now: options.now() }));
      for (const id of wanted) {
        hold(receiver, id);
        const view = live.get(id);
        const held = hello.views[id];
        if (view === undefined) continue;
        if (held === undefined) {
          receiver.write(view.full());
          continue;
        }
        const update = view.since(held.r, held.h);
        if (update === "current") continue;
        if (recovering) {
          // The agent adds what it lacks and takes nothing away; its buckets then tell whether it holds more.
          receiver.surplus.add(id);
          receiver.write(view.full());
        }
        receiver.write(recovering || update === undefined ? messageFrame({ t: "want", v: id }) : update);
      }
      if (recovering) for (const id of Object.keys(hello.views)) if (!wanted.includes(id)) receiver.surplus.add(id);
    },
    detach(receiver) {
      for (const id of [...receiver.views]) release(receiver, id);
      const set = receivers.get(receiver.node);
      set?.delete(receiver);
      if (set?.size === 0) receivers.delete(receiver.node);
    },
    checkHashes(receiver, hashes) {
      if (recovering) return;
      for (const [id, hash] of Object.entries(hashes)) {
        const view = live.get(id);
        if (view === undefined || !receiver.views.has(id) || view.hash === hash) continue;
        // A change may be on its way to the agent: whether this is a fault, its buckets tell.
        receiver.suspects.add(id);
        receiver.write(messageFrame({ t: "want", v: id }));
      }
    },
    answerBuckets(receiver, id, hashes) {
      const suspected = receiver.suspects.delete(id);
      const fill = receiver.views.has(id) ? live.get(id)?.fill(hashes) : undefined;
      if (fill === undefined) receiver.surplus.delete(id);
      if (fill === undefined || recovering) return "same";
      receiver.write(fill);
      return suspected ? "fault" : "filled";
    },
    setRecovering: (value) => {
      recovering = value;
    },
    surplus: () =>
      new Map([...receivers].map(([node, set]) => [node, [...set].flatMap((receiver) => [...receiver.surplus]).sort()] as const).filter(([, views]) => views.length > 0)),
    probeSurplus() {
      for (const set of receivers.values()) {
        for (const receiver of set) for (const id of receiver.surplus) if (receiver.views.has(id)) receiver.write(messageFrame({ t: "want", v: id }));
      }
    },
  };
}
