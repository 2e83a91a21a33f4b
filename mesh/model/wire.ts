/**
 * Messages between agent and controller: JSON text frames on one WebSocket (path `/v1/agent`) over mTLS. Readers ignore
 * unknown fields and unknown message types.
 */
import { z } from "zod";
import { Cidr, Endpoint, IpAddress, Labels, NodeName, ObjectName, Port, WgPublicKey } from "./scalars.ts";

/** Version of the plan format; the controller also speaks the one before. */
export const PLAN_FORMAT = 1;

/** No epoch and no revision passes it: far beyond any use, and far below where adding one stops changing a number. */
export const MAX_POSITION = 2 ** 48;

const Seal = z.string().max(64);

/** Where a store stands. `lineage` names the store, `epoch` is raised by every restore or recovery. */
export const Position = z.object({
  lineage: z.string().max(64),
  epoch: z.int().min(0).max(MAX_POSITION),
  revision: z.int().min(0).max(MAX_POSITION),
  /** By which a controller knows again what a controller gave out. */
  seal: Seal.optional(),
});
export type Position = z.infer<typeof Position>;

/** POST /v1/join, body. Without a client certificate; the token's secret authorises it, the pin authenticates the server. */
export const JoinRequest = z.object({
  /** The token's secret; absent when renewing with a key on record. */
  token: z.string().max(512).optional(),
  name: NodeName,
  network: ObjectName.optional(),
  publicKey: WgPublicKey,
  /** PKCS#10 request, PEM; its key is the node's TLS key and its signature proves possession. */
  csr: z.string().max(4096),
  machineId: z.string().max(128).describe("SHA-256 of machine-id and hardware ids, hex."),
  bootId: z.string().max(64),
  endpoints: z.array(Endpoint).max(16),
  /** Endpoints given by the operator with --endpoint. */
  manualEndpoints: z.array(Endpoint).max(4).default([]),
  advertise: z.array(Cidr).max(256).default([]),
  version: z.string().max(32),
});
export type JoinRequest = z.infer<typeof JoinRequest>;

/** POST /v1/join, answer. The plan follows on the stream, and its first state stands here so that the tunnel is up at once. */
export const JoinResponse = z.object({
  node: NodeName,
  network: ObjectName,
  position: Position,
  certificate: z.string().describe("PEM chain: leaf, intermediate."),
  roots: z.array(z.string()).describe("PEM of every trusted root."),
  controllers: z.array(z.string()).describe("HOST:PORT."),
  views: z.record(z.string(), z.record(z.string(), z.unknown())),
});
export type JoinResponse = z.infer<typeof JoinResponse>;

// ── agent → controller ─────────────────────────────────────────────────────────────────────────────────────────────

export const AgentHello = z.object({
  t: z.literal("hello"),
  node: NodeName,
  format: z.int(),
  version: z.string(),
  bootId: z.string(),
  machineId: z.string(),
  /** The furthest position that this agent ever saw; absent at the first contact. */
  seen: Position.optional(),
  /** Revision and hash of every view that the agent holds. */
  views: z.record(z.string(), z.object({ r: z.int(), h: z.string() })),
});
export type AgentHello = z.infer<typeof AgentHello>;

/** Sent when asked (`want`): 256 hashes, so that only differing buckets are sent back. */
export const AgentBuckets = z.object({ t: z.literal("buckets"), v: z.string(), h: z.array(z.string()).length(256) });
export type AgentBuckets = z.infer<typeof AgentBuckets>;

/** Every 20 s. The controller answers a wrong hash with `want`. */
export const AgentBeat = z.object({ t: z.literal("beat"), views: z.record(z.string(), z.string()) });
export type AgentBeat = z.infer<typeof AgentBeat>;

/** What is as long may have been cut. */
export const LONGEST_HOP = 64;

/** Result of one resource on this node. */
export const ResourceResult = z.object({
  ok: z.boolean(),
  reason: z.string().max(64),
  message: z.string().max(512).optional(),
  /** Installed next hop or active gateway. */
  nextHop: z.string().max(LONGEST_HOP).optional(),
  /** All active gateways, where `nextHop` has no room for their names. */
  active: z.array(NodeName).max(64).optional(),
  /** Gateways that it no longer uses for new flows, and that keep established ones until the drain timeout. */
  draining: z.array(NodeName).max(64).optional(),
  /** Drains that this result was made in knowledge of (`cordon` of the plan's gateways): no word from before one may end it. */
  cordons: z
    .array(z.object({ gateway: NodeName, cordon: z.string().max(32) }))
    .max(64)
    .optional(),
  /** Gateways that this node could not use now, and why; what carries its traffic may be well all the same. */
  unusable: z
    .array(z.object({ gateway: NodeName, why: z.string().max(32) }))
    .max(64)
    .optional(),
  since: z.number().optional(),
});
export type ResourceResult = z.infer<typeof ResourceResult>;

/** Gateways or next hops in use. */
export function hopsOf({ active, nextHop = "" }: Pick<ResourceResult, "active" | "nextHop">): readonly string[] {
  return active ?? nextHop.split(",").filter((hop) => hop !== "");
}

/** An agent of an earlier version names as many as fit: any other may be in use as well. */
export function hopsAreCut({ active, nextHop = "" }: Pick<ResourceResult, "active" | "nextHop">): boolean {
  return active === undefined && nextHop.length >= LONGEST_HOP;
}

export const AgentEvent = z.object({
  at: z.number(),
  type: z.enum(["Normal", "Warning"]),
  reason: z.string().max(64),
  message: z.string().max(1024),
  /** What it is about: a path id, a LAN route id, `peer/<node>` or `node`. */
  about: z.string().max(128),
});
export type AgentEvent = z.infer<typeof AgentEvent>;

/** Changed fields only; `null` deletes an entry of a map. */
export const AgentReport = z.object({
  t: z.literal("report"),
  applied: Position.optional(),
  kernel: z.string().optional(),
  wireguard: z.enum(["kernel", "userspace"]).optional(),
  /** Own candidates, ranked. */
  endpoints: z.array(Endpoint).max(16).optional(),
  manualEndpoints: z.array(Endpoint).max(4).optional(),
  advertise: z.array(Cidr).max(256).optional(),
  /** UDP port of the client link to each gateway node. */
  links: z.record(z.string(), Port.nullable()).optional(),
  /** Endpoint at which each peer is seen by this node's WireGuard: a hint. */
  observed: z.record(z.string(), Endpoint.nullable()).optional(),
  handshakes: z.object({ peers: z.int(), fresh: z.int(), lost: z.array(z.string()).max(20).optional() }).optional(),
  results: z.record(z.string(), ResourceResult.nullable()).optional(),
  conditions: z
    .array(z.object({ type: z.string(), status: z.enum(["True", "False", "Unknown"]), reason: z.string(), message: z.string().optional() }))
    .optional(),
  events: z.array(AgentEvent).max(100).optional(),
});
export type AgentReport = z.infer<typeof AgentReport>;

/** Answer to `ask`: the agent's own view of a question (explain, diff, status). */
export const AgentAnswer = z.object({ t: z.literal("answer"), id: z.string(), body: z.unknown().optional(), error: z.unknown().optional() });
export type AgentAnswer = z.infer<typeof AgentAnswer>;

/** The agent leaves for good (`isthmus leave`). */
export const AgentLeave = z.object({ t: z.literal("leave") });

export const AgentMessage = z.discriminatedUnion("t", [AgentHello, AgentBuckets, AgentBeat, AgentReport, AgentAnswer, AgentLeave]);
export type AgentMessage = z.infer<typeof AgentMessage>;

// ── controller → agent ─────────────────────────────────────────────────────────────────────────────────────────────

export const ControllerHello = z.object({
  t: z.literal("hello"),
  at: Position,
  format: z.int(),
  network: ObjectName,
  /** Views that the agent must hold from now on; others are dropped. */
  views: z.array(z.string()),
  /** Those of them that the agent holds and that changed since: their content follows. */
  stale: z.array(z.string()).optional(),
  /** True while the controller recovers: nothing is deleted on its word. */
  recovering: z.boolean(),
  /** Lineages of lost stores whose place this one took: what the agent saw of them no longer binds it. */
  supersedes: z.array(z.string()).optional(),
  now: z.number(),
});
export type ControllerHello = z.infer<typeof ControllerHello>;

/** Changes of one view from any earlier revision to `r`. The same bytes go to every agent of the view. */
export const ViewDelta = z.object({
  t: z.literal("delta"),
  v: z.string(),
  r: z.int(),
  /** Seal of the position with revision `r`. */
  s: Seal.optional(),
  p: z.record(z.string(), z.unknown()).optional(),
  d: z.array(z.string()).optional(),
});
export type ViewDelta = z.infer<typeof ViewDelta>;

/** Replaces the named buckets of a view (first byte of the key's hash); the whole view when `b` is absent. */
export const ViewBuckets = z.object({
  t: z.literal("fill"),
  v: z.string(),
  r: z.int(),
  s: Seal.optional(),
  b: z.array(z.int()).optional(),
  p: z.record(z.string(), z.unknown()),
});
export type ViewBuckets = z.infer<typeof ViewBuckets>;

/**
 * Before a change that is more than one message for this agent: views to hold from now on (their content follows as `fill`), views to
 * drop, and views of which a change follows. Only all of it together is a plan: a destination that goes from one view to another
 * would otherwise belong to none for a moment.
 */
export const ViewsChange = z.object({
  t: z.literal("views"),
  add: z.array(z.string()),
  drop: z.array(z.string()),
  change: z.array(z.string()).optional(),
});
/** The agent's hash of a view is wrong: answer with `buckets`. */
export const WantBuckets = z.object({ t: z.literal("want"), v: z.string() });
/** The only message that makes an agent give up (I1). */
export const Removed = z.object({ t: z.literal("removed"), node: NodeName });
/** This connection is refused; `code` is of the error table. The data plane stays as it is. */
export const Refused = z.object({ t: z.literal("refused"), code: z.string(), message: z.string(), remedy: z.string().optional() });
/** What a controller asks of an agent; one that does not know a question leaves it unanswered. */
const AskedOf = z.enum(["explain", "status", "diff", "restart-wireguard"]);
export type AskedOf = z.infer<typeof AskedOf>;
export const ControllerAsk = z.object({
  t: z.literal("ask"),
  id: z.string(),
  what: AskedOf,
  body: z.unknown().optional(),
});

export const ControllerMessage = z.discriminatedUnion("t", [
  ControllerHello,
  ViewDelta,
  ViewBuckets,
  ViewsChange,
  WantBuckets,
  Removed,
  Refused,
  ControllerAsk,
]);
export type ControllerMessage = z.infer<typeof ControllerMessage>;

/** What the controller keeps of an agent's claims, by which peers are compiled (authority: I11). */
export const NodeFacts = z.object({
  endpoints: z.array(Endpoint),
  manualEndpoints: z.array(Endpoint),
  /** Address that the controller saw. */
  seen: IpAddress.optional(),
  advertise: z.array(Cidr),
  links: z.record(z.string(), Port),
  labels: Labels.optional(),
});
export type NodeFacts = z.infer<typeof NodeFacts>;

/** What a text says as JSON; `undefined`, which no schema takes, where it is none. */
export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
