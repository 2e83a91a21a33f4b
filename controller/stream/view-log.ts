/** One view with its delta log: what is sent to an agent that stands at some revision, each text made once. */
import type { ViewChange } from "../../mesh/compile/types.ts";
import { applyPutDelete, bucketHashes, createView, differingBuckets, entriesInBuckets, viewHash, type ViewState } from "../../mesh/compile/views.ts";
import type { ViewData } from "../../mesh/model/plan.ts";
import { messageFrames, textFrames, type Frames } from "./frame.ts";

/** Entries and keys that a log keeps; beyond it buckets are compared, which costs little too. */
const MAX_ENTRIES = 1_024;
const MAX_KEYS = 20_000;

interface LogEntry {
  /** Hash of the view before the change. */
  readonly before: string;
  readonly change: ViewChange;
}

export interface LiveView {
  readonly id: string;
  readonly revision: number;
  readonly hash: string;
  /** Takes a change in and gives the frame for those who hold the revision before. */
  apply(change: ViewChange, revision: number): Frames;
  /** The whole view as JSON, as the join's answer has it. */
  json(): string;
  full(): Frames;
  /** A change of nothing: for an agent that waits for this view and holds it already. */
  unchanged(): Frames;
  /**
   * What brings an agent that holds content of hash `h` to now; undefined when the log does not know that content. The
   * content counts, not the revision that the agent tells: many revisions of the store leave a view as it is.
   */
  since(h: string): Frames | "current" | undefined;
  /** Additions and changes only, for the time of a recovery. */
  additions(change: ViewChange): Frames | undefined;
  /** Answer to an agent's bucket hashes; undefined when nothing differs. */
  fill(theirs: readonly string[]): Frames | undefined;
}

/** @param sealOf the seal under a revision, for the agents to show */
export function createLiveView(id: string, data: ViewData, at: number, sealOf: (revision: number) => string | undefined = () => undefined): LiveView {
  let state: ViewState = createView(data);
  let revision = at;
  let hash = viewHash(state);
  const log: LogEntry[] = [];
  let keys = 0;
  let text: string | undefined;
  let frame: Frames | undefined;
  /** Merged deltas by their place in the log, made once for all agents that return between two changes. */
  let merged = new Map<number, Frames>();
  const json = (): string => (text ??= JSON.stringify(Object.fromEntries(state.data)));
  const sealed = (r: number): { r: number; s?: string } => {
    const s = sealOf(r);
    return s === undefined ? { r } : { r, s };
  };
  const delta = ({ put, delete: gone }: ViewChange, r: number): Frames =>
    messageFrames({
      t: "delta",
      v: id,
      ...sealed(r),
      ...(put.size === 0 ? {} : { p: Object.fromEntries(put) }),
      ...(gone.length === 0 ? {} : { d: gone }),
    });
  return {
    id,
    get revision() {
      return revision;
    },
    get hash() {
      return hash;
    },
    apply(change, to) {
      log.push({ before: hash, change });
      keys += change.put.size + change.delete.length;
      while (log.length > MAX_ENTRIES || keys > MAX_KEYS) {
        const dropped = log.shift();
        keys -= dropped === undefined ? keys : dropped.change.put.size + dropped.change.delete.length;
      }
      state = applyPutDelete(state, change.put, change.delete);
      hash = viewHash(state);
      revision = to;
      text = undefined;
      frame = undefined;
      if (merged.size > 0) merged = new Map();
      return delta(change, to);
    },
    json,
    full: () => (frame ??= textFrames(`${JSON.stringify({ t: "fill", v: id, ...sealed(revision) }).slice(0, -1)},"p":${json()}}`)),
    unchanged: () => delta({ put: new Map(), delete: [] }, revision),
    since(h) {
      if (h === hash) return "current";
      const exact = log.findLastIndex(({ before }) => before === h);
      if (exact < 0) return undefined;
      // A delta that begins earlier says the same in the end: agents of nearby content share one text, an eighth longer at most.
      const step = 2 ** Math.max(0, Math.floor(Math.log2((log.length - exact) / 8)));
      const start = exact - (exact % step);
      const known = merged.get(start);
      if (known !== undefined) return known;
      const made = delta(merge(log.slice(start).map(({ change }) => change)), revision);
      merged.set(start, made);
      return made;
    },
    additions: (change) => (change.put.size === 0 ? undefined : delta({ put: change.put, delete: [] }, revision)),
    fill(theirs) {
      const buckets = differingBuckets(bucketHashes(state), theirs);
      if (buckets.length === 0) return undefined;
      return messageFrames({ t: "fill", v: id, ...sealed(revision), b: buckets, p: Object.fromEntries(entriesInBuckets(state, buckets)) });
    },
  };
}

/** Several changes in a row as one. */
function merge(changes: readonly ViewChange[]): ViewChange {
  const put = new Map<string, unknown>();
  const gone = new Set<string>();
  for (const change of changes) {
    for (const key of change.delete) {
      put.delete(key);
      gone.add(key);
    }
    for (const [key, value] of change.put) {
      put.set(key, value);
      gone.delete(key);
    }
  }
  return { put, delete: [...gone].sort() };
}
