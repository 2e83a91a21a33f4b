/** Views and who holds them: fans changes out, and brings agents that come back up to date. */
import { type CompileOutput, type ViewChange } from "../../mesh/compile/types.ts";
import { diffViews } from "../../mesh/compile/views.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import type { AgentHello, Position } from "../../mesh/model/wire.ts";
import { messageFrames, type Frames } from "./frame.ts";
import { createPacer } from "./pacer.ts";
import { createLiveView, type LiveView } from "./view-log.ts";

/** What the hub needs of a connection. */
export interface Receiver {
  readonly node: NodeName;
  readonly views: Set<string>;
  /** Views whose hash in a heartbeat was wrong. */
  readonly suspects: Set<string>;
  /** During a recovery: views in which the agent holds, or may hold, more than this store knows. */
  readonly surplus: Set<string>;
  /** `sent` is called when the message has left, or never will. */
  write(message: Frames, sent?: () => void): void;
}

export interface Hub {
  readonly output: CompileOutput | undefined;
  /** Revision of the output. */
  readonly revision: number;
  view(id: string): LiveView | undefined;
  /** Takes the next output in and sends what changed; returns how many views changed. */
  publish(output: CompileOutput, revision: number): number;
  /** Greets an agent, and sends what it lacks. `supersedes`: lineages that the agent may forget. */
  attach(receiver: Receiver, hello: AgentHello, at: Position, supersedes?: readonly string[]): void;
  detach(receiver: Receiver): void;
  /** Hashes of a heartbeat; for wrong ones the buckets are asked for. */
  checkHashes(receiver: Receiver, hashes: Readonly<Record<string, string>>): void;
  /**
   * Answers bucket hashes. `fault`: a heartbeat had told of it, and something does differ. `answered` is called when the answer has
   * left, or never will, or there is none.
   */
  answerBuckets(receiver: Receiver, view: string, hashes: readonly string[], answered?: () => void): "fault" | "filled" | "same";
  setRecovering(recovering: boolean): void;
  /** During a recovery: nodes that hold more than this store knows, with the views. */
  surplus(): ReadonlyMap<NodeName, readonly string[]>;
  /** During a recovery: asks them again. */
  probeSurplus(): void;
}

interface Move {
  readonly add: readonly string[];
  readonly drop: readonly string[];
}

interface CatchUp {
  readonly receiver: Receiver;
  readonly id: string;
  readonly held: { readonly r: number; readonly h: string } | undefined;
  /** The agent was told that content follows, and waits for it. */
  readonly announced: boolean;
}

export interface HubOptions {
  readonly network: string;
  readonly format: number;
  readonly now: () => number;
  /** The seal under a revision of the store as it stands. */
  readonly sealOf: (revision: number) => string;
}

export function createHub(options: HubOptions): Hub {
  const live = new Map<string, LiveView>();
  const holders = new Map<string, Set<Receiver>>();
  const receivers = new Map<NodeName, Set<Receiver>>();
  let output: CompileOutput | undefined;
  let revision = 0;
  let recovering = false;
  const pacer = createPacer(catchUp);

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

  /** Brings an agent up to date in one view. Until its turn comes it does not hold the view, so no change passes it by. */
  function catchUp({ receiver, id, held, announced }: CatchUp): void {
    const view = live.get(id);
    // Meanwhile the agent may have gone, or the view may be no longer its.
    if (receivers.get(receiver.node)?.has(receiver) !== true) return;
    if (view === undefined || output?.audience.get(receiver.node)?.includes(id) !== true) {
      // During a recovery it is not told to drop the view, and would wait for it: this says nothing new of it.
      if (recovering && announced) receiver.write(messageFrames({ t: "fill", v: id, r: revision, b: [], p: {} }));
      return;
    }
    hold(receiver, id);
    const update = held === undefined ? view.full() : view.since(held.h);
    if (update === "current") {
      // What was stale at its hello may have been taken back before its turn came.
      if (announced) receiver.write(view.unchanged());
      return;
    }
    if (recovering && held !== undefined) {
      // The agent adds what it lacks and takes nothing away; its buckets then tell whether it holds more.
      receiver.surplus.add(id);
      pacer.write(receiver, view.full());
      receiver.write(messageFrames({ t: "want", v: id }));
      return;
    }
    pacer.write(receiver, update ?? messageFrames({ t: "want", v: id }));
  }

  function send(id: string, view: LiveView, change: ViewChange): void {
    const frame = view.apply(change, revision);
    const sent = recovering ? view.additions(change) : frame;
    if (sent !== undefined) for (const receiver of holders.get(id) ?? []) receiver.write(sent);
  }

  /** Views that come and go for each agent; what goes is no longer sent. */
  function moveAudience(before: CompileOutput | undefined, next: CompileOutput): Map<Receiver, Move> {
    const moves = new Map<Receiver, Move>();
    for (const [node, set] of receivers) {
      const wanted = next.audience.get(node);
      // A node that is gone is told so by whoever took it out; it is not told to drop its plan.
      if (wanted === undefined || wanted === before?.audience.get(node)) continue;
      const had = before?.audience.get(node) ?? [];
      const add = wanted.filter((id) => !had.includes(id));
      const drop = had.filter((id) => !wanted.includes(id));
      if (add.length === 0 && drop.length === 0) continue;
      for (const receiver of set) {
        moves.set(receiver, { add, drop });
        for (const id of drop) release(receiver, id);
        for (const id of add) pacer.add({ receiver, id, held: undefined, announced: true });
      }
    }
    return moves;
  }

  /** What is more than one message for an agent is announced first: it takes all of it or nothing. */
  function announce(moves: ReadonlyMap<Receiver, Move>, changed: readonly string[]): void {
    const changing = new Map<Receiver, string[]>();
    if (changed.length > 1 || moves.size > 0) {
      for (const id of changed) {
        for (const receiver of holders.get(id) ?? []) {
          const list = changing.get(receiver);
          if (list === undefined) changing.set(receiver, [id]);
          else list.push(id);
        }
      }
    }
    for (const receiver of new Set([...moves.keys(), ...changing.keys()])) {
      const { add, drop } = moves.get(receiver) ?? { add: [], drop: [] };
      const change = changing.get(receiver) ?? [];
      if (add.length === 0 && drop.length === 0 && change.length < 2) continue;
      receiver.write(messageFrames({ t: "views", add, drop: recovering ? [] : drop, ...(change.length === 0 ? {} : { change }) }));
    }
  }

  function sendAll(before: CompileOutput | undefined, next: CompileOutput, changes: ReadonlyMap<string, ViewChange>): void {
    // What a recovery leaves out would be waited for.
    const sent = [...changes].filter(([id, { put }]) => live.has(id) && next.views.has(id) && (!recovering || put.size > 0));
    announce(
      moveAudience(before, next),
      sent.map(([id]) => id),
    );
    for (const [id, change] of changes) {
      const view = live.get(id);
      const data = next.views.get(id);
      if (data === undefined) live.delete(id);
      else if (view === undefined) live.set(id, createLiveView(id, data, revision, options.sealOf));
      else send(id, view, change);
    }
    for (const [id, data] of next.views) if (!live.has(id)) live.set(id, createLiveView(id, data, revision, options.sealOf));
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
      try {
        sendAll(before, next, changes);
      } catch (thrown) {
        // The next try has to find these changes again.
        output = before;
        throw thrown;
      }
      pacer.pump();
      return changes.size;
    },
    attach(receiver, hello, at, supersedes = []) {
      const wanted = output?.audience.get(receiver.node) ?? [];
      const stale = wanted.filter((id) => hello.views[id] !== undefined && live.get(id)?.hash !== hello.views[id].h);
      receivers.set(receiver.node, (receivers.get(receiver.node) ?? new Set()).add(receiver));
      receiver.write(
        messageFrames({
          t: "hello",
          at,
          format: options.format,
          network: options.network,
          views: wanted,
          ...(stale.length === 0 ? {} : { stale }),
          recovering,
          now: options.now(),
          ...(supersedes.length === 0 ? {} : { supersedes }),
        }),
      );
      for (const id of wanted) pacer.add({ receiver, id, held: hello.views[id], announced: stale.includes(id) });
      pacer.pump();
      if (recovering) for (const id of Object.keys(hello.views)) if (!wanted.includes(id)) receiver.surplus.add(id);
    },
    detach(receiver) {
      for (const id of receiver.views) release(receiver, id);
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
        receiver.write(messageFrames({ t: "want", v: id }));
      }
    },
    answerBuckets(receiver, id, hashes, answered) {
      const suspected = receiver.suspects.delete(id);
      const view = receiver.views.has(id) ? live.get(id) : undefined;
      const fill = view?.fill(hashes);
      if (fill === undefined) receiver.surplus.delete(id);
      // The agent may have been told that this view changes, also where nothing does.
      const answer = recovering ? undefined : (fill ?? view?.unchanged());
      if (answer === undefined) answered?.();
      else receiver.write(answer, answered);
      if (recovering || fill === undefined) return "same";
      return suspected ? "fault" : "filled";
    },
    setRecovering: (value) => {
      recovering = value;
    },
    surplus: () => new Map([...receivers].map(([node, set]) => [node, surplusOf(set)] as const).filter(([, views]) => views.length > 0)),
    probeSurplus() {
      for (const set of receivers.values()) {
        for (const receiver of set)
          for (const id of receiver.surplus) if (receiver.views.has(id)) receiver.write(messageFrames({ t: "want", v: id }));
      }
    },
  };
}

function surplusOf(receivers: ReadonlySet<Receiver>): string[] {
  return [...new Set(receivers.values().flatMap(({ surplus }) => surplus))].sort();
}
