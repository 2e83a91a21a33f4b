/**
 * What the API answers to questions that are not objects: events, differences, explanations. Readers ignore fields that
 * they do not know. All times are milliseconds since 1970.
 */
import { z } from "zod";
import { Labels } from "./scalars.ts";
import { oneLine } from "./words.ts";

/** Words of a node that others read: what it may be is not known, so that it is made harmless where it is read, and cut. */
const told = (most: number) => z.string().overwrite((text) => (text.length > most ? `${oneLine(text.slice(0, most - 1))}…` : oneLine(text)));
const Word = told(512);

/** Header of every answer of a controller in Recovery: how many nodes on record have not reported since it began. */
export const RECOVERY_HEADER = "isthmus-recovery";
/** With it: why the controller is in Recovery, as a clause. */
export const RECOVERY_CAUSE_HEADER = "isthmus-recovery-cause";

/** GET /v1/events gives `{ items }`, newest last; with `watch=1` one per line. */
export const EventRecord = z.object({
  at: z.number(),
  type: z.enum(["Normal", "Warning"]),
  reason: z.string().describe("One CamelCase word, stable for programs."),
  message: z.string(),
  about: z.string().describe("What it is about: `node/<name>`, `egress/<name>`, `peer/<node>` …"),
  node: z.string().optional().describe("The node that reported it; absent when the controller says it."),
  count: z.int().optional().describe("How often it happened, when equal events were folded."),
});
export type EventRecord = z.infer<typeof EventRecord>;

/** POST /v1/apply: what happened to one document. */
export const ApplyResult = z.object({
  kind: z.string(),
  name: z.string(),
  action: z.enum(["created", "configured", "unchanged"]),
  object: z.unknown().optional(),
  warnings: z.array(z.string()).optional().describe("What of the object has no effect, or was carved out, and why; it was applied all the same."),
});
export type ApplyResult = z.infer<typeof ApplyResult>;

/** One thing that would change on one node. */
export const Change = z.object({
  area: z.enum(["peer", "route", "rule", "nat", "nexthop", "address", "link"]),
  action: z.enum(["add", "remove", "change"]),
  what: z.string(),
  from: z.string().optional(),
  to: z.string().optional(),
});
export type Change = z.infer<typeof Change>;

/** Rows of one node; one more counts the rest. */
export const MOST_CHANGES = 2_000;
/** Intents of which one node says what it would not route. */
export const MOST_REFUSED = 100;
const LIST = 2_048;

/** An agent's answer to `ask diff`. */
export const AgentDiff = z.object({
  changes: z.array(Change.extend({ what: Word, from: told(LIST).optional(), to: told(LIST).optional() })).max(MOST_CHANGES + 1),
  /** Why it would not route all that an intent wants, by path or route id. */
  refused: z
    .record(z.string().max(512), Word)
    .refine((refused) => Object.keys(refused).length <= MOST_REFUSED, "too many")
    .optional(),
});
export type AgentDiff = z.infer<typeof AgentDiff>;

/**
 * POST /v1/diff gives `{ nodes }`. `agent`: the node computed it from its own kernel, `note` says what it would not route; `plan`:
 * the controller from the plan, `note` says why.
 */
export const NodeDiff = z.object({
  node: z.string(),
  source: z.enum(["agent", "plan"]),
  note: z.string().optional(),
  changes: z.array(Change),
});
export type NodeDiff = z.infer<typeof NodeDiff>;

/** One step of a packet's way. */
export const Hop = z.object({
  /** Where it happens: a node's name, or an address outside the mesh. */
  at: Word,
  /** What happens, as a sentence. */
  what: Word,
  dev: Word.optional(),
  via: Word.optional(),
  table: z.int().optional(),
});
export type Hop = z.infer<typeof Hop>;

/** A gateway of the path and why it is or is not in use. */
export const Candidate = z.object({
  node: Word.describe("Node name, or the address of a router on a LAN."),
  active: z.boolean(),
  why: Word.describe("`Down`, `LowerPreference` …; the reason of the choice for an active one."),
  message: Word.optional(),
  since: z.number().optional(),
});
export type Candidate = z.infer<typeof Candidate>;

/** GET /v1/nodes/NAME/explain, and GET /explain of the agent's own socket. */
export const Explanation = z.object({
  node: Word,
  destination: Word,
  /** `Mesh`: an overlay address of a node. `Gateway`: over a gateway link. `Lan`: by a router on the LAN. `Underlay`: not ours. */
  verdict: z.enum(["Local", "Mesh", "Gateway", "Lan", "Underlay", "Protected", "Unreachable"]),
  /** The intent that owns the destination (`egress/web`, `subnet/dc1`, `lanroute/x` …) and its most specific prefix. */
  owner: Word.optional(),
  prefix: Word.optional(),
  /** Why this way: the reason's word and a sentence. */
  reason: Word.optional(),
  message: Word.optional(),
  since: z.number().optional(),
  hops: z.array(Hop),
  candidates: z.array(Candidate).default([]),
  snat: Word.optional().describe("`Masquerade`, `None`, or the source address."),
  /** Address that the destination sees, where it is known. */
  exit: Word.optional(),
  /** What `ip route get` says, and whether that is what the plan wants. */
  kernel: z.object({ text: Word, agrees: z.boolean(), note: Word.optional() }).optional(),
});
export type Explanation = z.infer<typeof Explanation>;

/** POST /v1/nodes/{name}/restart-wireguard: the interfaces that were made anew; none where WireGuard is part of the kernel. */
export const WireguardRestart = z.object({ wireguard: z.enum(["kernel", "userspace"]), interfaces: z.array(Word) });
export type WireguardRestart = z.infer<typeof WireguardRestart>;

/** POST /v1/admins. */
export const AdminRole = z.enum(["viewer", "operator", "admin"]);
export type AdminRole = z.infer<typeof AdminRole>;
export const AdminAnswer = z.object({
  certificate: z.string().describe("PEM chain."),
  roots: z.array(z.string()).describe("PEM of every trusted root."),
});
export type AdminAnswer = z.infer<typeof AdminAnswer>;

/** PATCH /v1/resources/PLURAL/NAME/labels. */
export const LabelPatch = z.object({ set: Labels.default({}), remove: z.array(z.string()).default([]), overwrite: z.boolean().default(false) });
export type LabelPatch = z.infer<typeof LabelPatch>;
