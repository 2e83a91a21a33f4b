/**
 * Who may join, under which name and index. Decided on a draft of the store; the commit's comparison makes it one
 * compare-and-set, so that a token is never redeemed more often than it allows and an index has one owner (I6).
 */
import { IsthmusError } from "../../mesh/errors.ts";
import type { MeshNetworkSpec } from "../../mesh/model/mesh-network.ts";
import { API_VERSION } from "../../mesh/model/meta.ts";
import type { NetworkPlan } from "../../mesh/model/plan.ts";
import type { Resource } from "../../mesh/model/resources.ts";
import type { Cidr, IpAddress, NodeName } from "../../mesh/model/scalars.ts";
import type { JoinRequest, NodeFacts } from "../../mesh/model/wire.ts";
import { NO_ALLOCATIONS, allocate, free, type AllocationState } from "../../mesh/net/allocate.ts";
import { maxIndex } from "../../mesh/net/overlay.ts";
import { count } from "../../mesh/model/words.ts";
import type { Draft } from "../reconcile/draft.ts";
import { FOLDER, NETWORK, POOL_KEY, resourceKey, wgKeyKey } from "../reconcile/keys.ts";
import { secretHash, type Holder, type Member, type SecretRecord, type Tombstone } from "./records.ts";

export interface JoinInput {
  readonly request: JoinRequest;
  /** SHA-256 of the request's TLS key, possession proven. */
  readonly keyHash: string;
  /** Address that the request came from. */
  readonly seen: IpAddress | undefined;
}

export interface JoinSettings {
  readonly now: number;
  readonly epoch: number;
  readonly recovering: boolean;
  readonly newUid: () => string;
}

export interface Joined {
  readonly node: Resource<"MeshNode">;
  readonly action: "joined" | "renewed";
}

type Token = Resource<"JoinToken">;
type Network = Resource<"MeshNetwork">;

/** @throws {IsthmusError} every reason to refuse; the draft is then as it was */
export function decideJoin(draft: Draft, input: JoinInput, settings: JoinSettings): Joined {
  const { request, keyHash } = input;
  if (request.network !== undefined && request.network !== NETWORK)
    throw new IsthmusError("NotFound", `this controller has no network ${request.network}`);
  const known = draft.read(resourceKey("MeshNode", request.name)) as Resource<"MeshNode"> | undefined;
  if (known !== undefined && known.spec.tlsKey === keyHash) return renew(draft, known, input);
  if (settings.recovering) throw recovering();
  if (request.token === undefined) throw unknownKey(draft, input);
  if (draft.read(FOLDER.revoked + keyHash) !== undefined)
    throw new IsthmusError("CertificateRevoked", "the keys of this machine were revoked", {
      remedy: "Run `isthmus cleanup` on it, then join: it makes new keys.",
    });
  const token = redeem(draft, request, settings);
  if (known !== undefined) throw nameTaken(request.name);
  const elsewhere = (draft.read(FOLDER.tlsKeys + keyHash) as Holder | undefined) ?? (draft.read(wgKeyKey(request.publicKey)) as Holder | undefined);
  if (elsewhere !== undefined) throw keyTaken(elsewhere.node);
  const node = makeNode(draft, input, settings, token);
  const member: Member = {
    machineId: request.machineId,
    bootId: request.bootId,
    token: token.metadata.name,
    joined: new Date(settings.now).toISOString(),
  };
  const holder: Holder = { node: request.name };
  const used = (token.status?.used ?? 0) + 1;
  draft.write(resourceKey("JoinToken", token.metadata.name), { ...token, status: { ...token.status, used } });
  draft.write(resourceKey("MeshNode", request.name), node);
  draft.write(FOLDER.members + request.name, member);
  draft.write(FOLDER.facts + request.name, factsOf(input));
  draft.write(FOLDER.tlsKeys + keyHash, holder);
  draft.write(wgKeyKey(request.publicKey), holder);
  draft.write(`${FOLDER.indexes}${node.spec.index}`, holder);
  draft.remove(FOLDER.removed + keyHash);
  return { node, action: "joined" };
}

/** A key on record: a retry, a renewal of the certificate, or a new WireGuard key. Needs no token. */
function renew(draft: Draft, known: Resource<"MeshNode">, { request, keyHash }: JoinInput): Joined {
  if (draft.read(FOLDER.revoked + keyHash) !== undefined) throw revoked(request.name);
  const member = draft.read(FOLDER.members + request.name) as Member | undefined;
  if (member !== undefined && member.machineId !== request.machineId) throw cloned(request.name);
  if (known.spec.publicKey === request.publicKey) return { node: known, action: "renewed" };
  const holder = draft.read(wgKeyKey(request.publicKey)) as Holder | undefined;
  if (holder !== undefined && holder.node !== request.name) throw keyTaken(holder.node);
  const node = {
    ...known,
    metadata: { ...known.metadata, generation: (known.metadata.generation ?? 1) + 1 },
    spec: { ...known.spec, publicKey: request.publicKey },
  };
  draft.write(resourceKey("MeshNode", request.name), node);
  draft.remove(wgKeyKey(known.spec.publicKey));
  draft.write(wgKeyKey(request.publicKey), { node: request.name } satisfies Holder);
  return { node, action: "renewed" };
}

function redeem(draft: Draft, request: JoinRequest, { now, epoch }: JoinSettings): Token {
  const record = draft.read(FOLDER.secrets + secretHash(request.token ?? "")) as SecretRecord | undefined;
  const token = record === undefined ? undefined : (draft.read(resourceKey("JoinToken", record.token)) as Token | undefined);
  if (token === undefined) throw refuse("TokenUnknown", "this controller does not know the token");
  const { name } = token.metadata;
  const { status, spec } = token;
  if (status?.revoked === true) throw refuse("TokenUnknown", `token ${name} was revoked`);
  if (status?.epoch !== epoch) throw refuse("TokenUnknown", `token ${name} is void: it was made before the controller was restored`);
  if (Date.parse(spec.expires) <= now) throw refuse("TokenExpired", `token ${name} expired at ${spec.expires}`);
  if (status.used >= spec.uses) throw refuse("TokenSpent", `token ${name} was already used ${status.used} of ${count(spec.uses, "time")}`);
  if (spec.namePattern !== undefined && !matchesPattern(request.name, spec.namePattern)) {
    throw new IsthmusError("NamePattern", `token ${name} is for nodes named ${spec.namePattern}, not ${request.name}`, {
      remedy: "Join with --name, or use another token.",
    });
  }
  if (draft.read(resourceKey("Site", spec.site)) === undefined) {
    throw new IsthmusError("NotFound", `token ${name} is for site ${spec.site}, which was deleted`, {
      remedy: `Apply site ${spec.site} again, or make a token for another site with \`isthmus create token\`.`,
    });
  }
  return token;
}

function makeNode(draft: Draft, { request, keyHash }: JoinInput, settings: JoinSettings, token: Token): Resource<"MeshNode"> {
  const network = draft.read(resourceKey("MeshNetwork", NETWORK)) as Network | undefined;
  if (network === undefined) throw new IsthmusError("Internal", "the store holds no network");
  const pool = (draft.read(POOL_KEY) as AllocationState | undefined) ?? NO_ALLOCATIONS;
  const given = allocate(pool, settings.now, maxIndex(rangesOf(network)));
  if (!given.ok) {
    const when = given.retryAt === undefined ? "" : `; the next freed one may be given at ${new Date(given.retryAt).toISOString()}`;
    throw new IsthmusError("PoolExhausted", `no overlay address is left in ${network.spec.overlay.v4}${when}`, {
      remedy: "Delete nodes that are gone, or make a network with larger ranges.",
    });
  }
  if (draft.read(`${FOLDER.indexes}${given.index}`) !== undefined) throw new IsthmusError("Internal", `index ${given.index} has an owner already`);
  draft.write(POOL_KEY, given.state);
  const { labels, grants } = token.spec;
  return {
    apiVersion: API_VERSION,
    kind: "MeshNode",
    metadata: {
      name: request.name as unknown as Resource["metadata"]["name"],
      uid: settings.newUid(),
      generation: 1,
      creationTimestamp: new Date(settings.now).toISOString(),
      origin: "api",
    },
    spec: {
      site: token.spec.site,
      index: given.index,
      publicKey: request.publicKey,
      tlsKey: keyHash,
      ...(labels === undefined ? {} : { labels }),
      ...(grants?.advertise === undefined ? {} : { advertise: grants.advertise }),
    },
  };
}

/** Takes a node out, for good: its keys are refused from now on, its index rests (I6). */
export function removeNode(draft: Draft, name: NodeName, now: number): Resource<"MeshNode"> {
  const node = draft.read(resourceKey("MeshNode", name)) as Resource<"MeshNode"> | undefined;
  if (node === undefined) throw new IsthmusError("NotFound", `there is no node ${name}`);
  const tombstone: Tombstone = { node: name, at: new Date(now).toISOString() };
  draft.remove(resourceKey("MeshNode", name));
  draft.remove(FOLDER.members + name);
  draft.remove(FOLDER.facts + name);
  draft.remove(wgKeyKey(node.spec.publicKey));
  draft.remove(FOLDER.tlsKeys + node.spec.tlsKey);
  draft.remove(`${FOLDER.indexes}${node.spec.index}`);
  draft.write(FOLDER.removed + node.spec.tlsKey, tombstone);
  draft.write(POOL_KEY, free((draft.read(POOL_KEY) as AllocationState | undefined) ?? NO_ALLOCATIONS, node.spec.index, now));
  return node;
}

/** What is known of a node's whereabouts at its join; later reports replace it. */
function factsOf({ request, seen }: JoinInput): NodeFacts {
  return {
    endpoints: request.endpoints,
    manualEndpoints: request.manualEndpoints,
    ...(seen === undefined ? {} : { seen }),
    advertise: request.advertise,
    links: {},
  };
}

export function rangesOf(network: { readonly spec: MeshNetworkSpec }): Pick<NetworkPlan, "overlay" | "links"> {
  const { overlay, links } = network.spec;
  if (overlay.v6 === undefined) throw new IsthmusError("Internal", "the network has no IPv6 range");
  return { overlay: { v4: overlay.v4, v6: overlay.v6 satisfies Cidr }, links };
}

/** `*` stands for any characters. Linear in the length of the name, so that no pattern can be made to hang. */
export function matchesPattern(name: string, pattern: string): boolean {
  const [first = "", ...rest] = pattern.split("*");
  if (rest.length === 0) return name === first;
  const last = rest.pop() ?? "";
  if (!name.startsWith(first) || name.length < first.length + last.length || !name.endsWith(last)) return false;
  let at = first.length;
  for (const part of rest) {
    const found = name.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return at <= name.length - last.length;
}

function refuse(code: "TokenUnknown" | "TokenExpired" | "TokenSpent", message: string): IsthmusError {
  return new IsthmusError(code, message, { remedy: "Make a new token with `isthmus create token`." });
}

function unknownKey(draft: Draft, { request, keyHash }: JoinInput): IsthmusError {
  if (draft.read(FOLDER.removed + keyHash) !== undefined) {
    return new IsthmusError("NodeRemoved", `node ${request.name} was removed from the network`, { remedy: "Join again with a token." });
  }
  return new IsthmusError("Unauthenticated", `no node ${request.name} with this key is on record`, { remedy: "Join with a token." });
}

function nameTaken(name: string): IsthmusError {
  return new IsthmusError("NameTaken", `a node named ${name} is already in the network, with other keys`, {
    remedy: `Join with --name, or run \`isthmus delete node ${name}\` first if that machine is gone.`,
  });
}

function keyTaken(node: string): IsthmusError {
  return new IsthmusError("CloneDetected", `the keys belong to node ${node} already`, {
    remedy: "Run `isthmus cleanup` on this machine, then join: it makes new keys.",
  });
}

function cloned(name: string): IsthmusError {
  return new IsthmusError("CloneDetected", `this machine is not the one that joined as ${name}: its machine and hardware ids differ`, {
    remedy: "If it is a copy, run `isthmus cleanup` on it and join under another name. If the machine was rebuilt, delete the node and join again.",
  });
}

/** What its own agent is told: it may change nothing any more, also not leave. */
export function revoked(name: string): IsthmusError {
  return new IsthmusError("CertificateRevoked", `the certificate of node ${name} was revoked`, {
    remedy: `Let an admin run \`isthmus delete node ${name}\`, if that was not just done: within seconds of it this agent removes its traces by itself. Or stop the agent here and run \`isthmus cleanup\`. After either a new token lets the machine join again.`,
  });
}

export function recovering(): IsthmusError {
  return new IsthmusError("Recovering", "the controller recovers from lost writes: it issues no address and no token until the agents reported", {
    remedy: "Wait, or run `isthmus recovery confirm` when every node that will come back is back.",
  });
}
