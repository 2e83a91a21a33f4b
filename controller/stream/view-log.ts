/** One view with its delta log: what is sent to an agent that stands at some revision, each text made once. */
import type { ViewChange } from "../../mesh/compile/types.ts";
import { applyPutDelete, bucketHashes, createView, differingBuckets, entriesInBuckets, viewHash, type ViewState } from "../../mesh/compile/views.ts";
import type { ViewData } from "../../mesh/model/plan.ts";
import { messageFrame, textFrame } from "./frame.ts";

/** Entries and keys that a log keeps; beyond it buckets are compared, which costs little too. */
const MAX_ENTRIES = 1_024;
const MAX_KEYS = 20_000;

interface LogEntry {
  /** Revision and hash before and after. */
  readonly before: { readonly r: number; readonly h: string };
  readonly change: ViewChange;
}

export interface LiveView {
  readonly id: string;
  readonly revision: number;
  readonly hash: string;
  /** Takes a change in and gives the frame for those who hold the revision before. */
  apply(change: ViewChange, revision: number): Buffer;
  /** The whole view as JSON, as the join's answer has it. */
  json(): string;
  full(): Buffer;
  /** What brings an agent from (r, h) to now; undefined when the log does not reach back to it. */
  since(r: number, h: string): Buffer | "current" | undefined;
  /** Additions and changes only, for the time of a recovery. */
  additions(change: ViewChange): Buffer | undefined;
  /** Answer to an agent's bucket hashes; undefined when nothing differs. */
  fill(theirs: readonly string[]): Buffer | undefined;
}

export function createLiveView(id: string, data: ViewData, at: number): LiveView {
  let state: ViewState = createView(data);
  let revision = at;
  let hash = viewHash(state);
  let log: LogEntry[] = [];
  let keys = 0;
  let text: string | undefined;
  let frame: Buffer | undefined;
  const json = (): string => (text ??= JSON.stringify(Object.fromEntries(state.data)));
  const delta = ({ put, delete: gone }: ViewChange, r: number): Buffer =>
    messageFrame({ t: "delta", v: id, r, ...(put.size === 0 ? {} : { p: Object.fromEntries(put) }), ...(gone.length === 0 ? {} : { d: gone }) });
  return {
    id,
    get revision() {
      return revision;
    },
    get hash() {
      return hash;
    },
    apply(change, to) {
      log.push({ before: { r: revision, h: hash }, change });
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
      return delta(change, to);
    },
    json,
    full: () => (frame ??= textFrame(`{"t":"fill","v":${JSON.stringify(id)},"r":${revision},"p":${json()}}`)),
    since(r, h) {
      if (h === hash) return "current";
      const start = log.findLastIndex(({ before }) => before.r === r && before.h === h);
      return start < 0 ? undefined : delta(merge(log.slice(start).map(({ change }) => change)), revision);
    },
    additions: (change) => (change.put.size === 0 ? undefined : delta({ put: change.put, delete: [] }, revision)),
    fill(theirs) {
      const buckets = differingBuckets(bucketHashes(state), theirs);
      if (buckets.length === 0) return undefined;
      return messageFrame({ t: "fill", v: id, r: revision, b: buckets, p: Object.fromEntries(entriesInBuckets(state, buckets)) });
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
