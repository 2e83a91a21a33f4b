/** WireGuard interfaces and peers, in the kernel or in wireguard-go, told apart by the socket that the latter has. */
import { asIsthmusError, IsthmusError } from "../../mesh/errors.ts";
import type { Operation } from "../../mesh/kernel/operations.ts";
import type { WgDevice, WgInterface, WgPeerSeen } from "../../mesh/kernel/types.ts";
import type { Cidr, Endpoint, WgPublicKey } from "../../mesh/model/scalars.ts";
import { must, run } from "./exec.ts";
import { ipJson } from "./ip.ts";
import { configureUserspace, hasProcess, isUserspace, killWireguardGo, startWireguardGo } from "./wireguard-go.ts";
import type { WireguardLook } from "./wireguard-look.ts";

export type LinkOperation = Extract<Operation, { op: "link.add" | "link.set" }>;
export type PeerOperation = Extract<Operation, { op: "peer.add" | "peer.set" | "peer.remove" | "peer.reset" }>;

/** A module that takes longer to load is asked for again; whoever waits for the answer is not held up for long. */
const PROBE_MS = 5_000;

/** Whether this host's kernel makes WireGuard devices. */
export async function kernelHasWireguard(): Promise<boolean> {
  const name = "ismprobe";
  const options = { timeoutMs: PROBE_MS };
  const made = await run("ip", ["link", "add", name, "type", "wireguard"], options);
  const yes = made.ok || /File exists/i.test(made.stderr);
  if (yes) await run("ip", ["link", "del", name], options);
  return yes;
}

/** A module may be slow, or be installed later: only a yes stays. */
const ASK_AGAIN_MS = 60_000;

/**
 * Asks at once while there was no answer. A no is asked again after a while, and stands until there is another answer: nobody waits for
 * that, nor is harmed when there is none.
 */
export function rememberYes(ask: () => Promise<boolean>, now: () => number): () => Promise<boolean> {
  let known: boolean | undefined;
  let askAgainAt = -Infinity;
  let asking: Promise<boolean> | undefined;
  const answer = async (): Promise<boolean> => {
    try {
      return (known = await ask());
    } finally {
      askAgainAt = now() + ASK_AGAIN_MS;
      asking = undefined;
    }
  };
  return async () => {
    if (known === true || (known === false && now() < askAgainAt)) return known;
    asking ??= answer();
    if (known === undefined) return asking;
    asking.catch(() => undefined);
    return known;
  };
}

/**
 * A loose reverse-path check (rp_filter 2) drops everything that arrives on a device without any IPv4 address and whose
 * source is routed elsewhere (`no_addr` in the kernel's fib_validate_source): mesh sources on `ismgw0`, flows that stay
 * on a link while their destination has moved. So every device of ours has this one, of link scope, that nothing uses.
 */
const ANCHOR = "169.254.157.1";

interface LinkRow {
  readonly ifname: string;
  readonly flags: readonly string[];
  readonly mtu: number;
  readonly addr_info?: readonly { readonly local: string }[];
}

/** Devices that are ours by their names. */
export const OWN_DEVICE = /^ism(0|gw0|g\d+)$/;
/** Others wait in line behind a process that does not take what it is told. */
const TOLD_MS = 3_000;

/** All devices named ism*. One that does not speak WireGuard is `broken`. */
export async function observeWireguard(look: () => Promise<ReadonlyMap<string, WgDevice>>): Promise<Map<string, WgInterface>> {
  const [rows, speaking] = await Promise.all([ipJson<LinkRow>(["address", "show"]), look()]);
  const ours = rows.filter(({ ifname }) => OWN_DEVICE.test(ifname)).sort((a, b) => (a.ifname < b.ifname ? -1 : 1));
  const interfaces = ours.map(({ ifname, flags, mtu, addr_info }): WgInterface => {
    const anchored = addr_info?.some(({ local }) => local === ANCHOR) ?? false;
    const state = { name: ifname, mtu, up: flags.includes("UP") && anchored };
    const wg = speaking.get(ifname);
    return wg === undefined
      ? { ...state, listenPort: 0, fwmark: 0, publicKey: "" as WgPublicKey, peers: new Map(), broken: true }
      : { ...state, ...wg };
  });
  return new Map(interfaces.map((one) => [one.name, one]));
}

/** `wg show all dump` (wg(8)) as it is printed once; see `createDumpReader`. */
export function parseDump(dump: string): Map<string, WgDevice> {
  return createDumpReader()(dump);
}

/**
 * Reads one `wg show all dump` (wg(8)) after the other: an interface line has 5 fields, a peer line 9. Most peers are as they were at
 * the last look: a line that stands where it stood is the same object again, and leaves nothing for the collector.
 */
export function createDumpReader(): (dump: string) => Map<string, WgDevice> {
  let before: readonly DumpLine[] = [];
  return (dump) => {
    const found = new Map<string, WgDevice & { peers: Map<WgPublicKey, WgPeerSeen> }>();
    before = dump.split("\n").map((text, i) => (text === before[i]?.text ? before[i] : readLine(text)));
    for (const { name, device, peer } of before) {
      if (device !== undefined) found.set(name, { ...device, peers: new Map() });
      else if (peer !== undefined) found.get(name)?.peers.set(peer.publicKey, peer);
    }
    return found;
  };
}

interface DumpLine {
  /** Undefined where the line has a secret: that is read anew rather than kept. */
  readonly text?: string;
  readonly name: string;
  readonly device?: Omit<WgDevice, "peers">;
  readonly peer?: WgPeerSeen;
}

function readLine(part: string): DumpLine {
  // A piece of a string keeps all of it in memory; this one is kept for long, the dump is not.
  const text = Buffer.from(part, "latin1").toString("latin1");
  const fields = text.split("\t");
  const [name = "", , second = "", third = "", fourth = ""] = fields;
  if (fields.length === 5) {
    const publicKey = (second === "(none)" ? "" : second) as WgPublicKey;
    return { name, device: { publicKey, listenPort: Number(third), fwmark: fourth === "off" ? 0 : Number(fourth) } };
  }
  if (fields.length !== 9) return { name };
  const [, key = "", preshared, endpoint = "", allowed = "", handshake, rx, tx, keepalive] = fields;
  const peer = {
    publicKey: key as WgPublicKey,
    allowedIps: allowed === "(none)" ? [] : (allowed.split(",").sort() as Cidr[]),
    keepalive: keepalive === "off" ? 0 : Number(keepalive),
    latestHandshake: Number(handshake),
    rxBytes: Number(rx),
    txBytes: Number(tx),
    ...(preshared === "(none)" ? {} : { presharedKey: true as const }),
    ...(endpoint === "(none)" ? {} : { endpoint: endpoint as Endpoint }),
  };
  return { name, peer, ...(preshared === "(none)" ? { text } : {}) };
}

/** Makes the device if it is missing, and gives it key, port, mark and MTU. Up comes first, so that a taken port is an error here. */
export async function applyLink(
  operation: LinkOperation,
  options: { readonly privateKeyFile: string; readonly runDir: string; readonly kernel: boolean; readonly look: WireguardLook },
): Promise<void> {
  const { link } = operation;
  if (operation.op === "link.add") {
    const exists = await run("ip", ["link", "show", "dev", link.name]);
    if (!exists.ok && options.kernel) await must("ip", ["link", "add", link.name, "type", "wireguard"]);
    else if (!exists.ok) {
      await startWireguardGo(link.name, options.runDir);
      options.look.forget(link.name);
    }
  }
  const lines = [`link set dev ${link.name} mtu ${link.mtu} up`, `address replace ${ANCHOR}/32 dev ${link.name} scope link`];
  await must("ip", ["-batch", "-"], { input: `${lines.join("\n")}\n` });
  if (operation.op === "link.set" && onlyDevice(operation.before, link)) return;
  const key = ["private-key", options.privateKeyFile];
  const set = ["set", link.name, ...key, "listen-port", String(link.listenPort), "fwmark", `0x${link.fwmark.toString(16)}`];
  await must("wg", set, { timeoutMs: TOLD_MS }).catch((thrown: unknown) => {
    if (asIsthmusError(thrown).code === "Timeout") options.look.suspect(link.name);
    if (!/Address already in use/i.test(asIsthmusError(thrown).message)) throw thrown;
    const remedy = `stop that program (\`ss -ulpn sport = :${link.listenPort}\` names it), or choose other ports in spec.ports of the MeshNetwork`;
    throw new IsthmusError("PortTaken", `UDP port ${link.listenPort} of ${link.name} is taken by another program on this machine: ${remedy}`, {
      remedy,
      cause: thrown,
    });
  });
}

/** Only MTU or state of the device: `wg set listen-port` opens the socket of a wireguard-go anew, and packets are lost. */
function onlyDevice(before: WgInterface, link: WgInterface): boolean {
  const same = before.listenPort === link.listenPort && before.fwmark === link.fwmark && before.publicKey === link.publicKey;
  return same && before.broken === undefined;
}

export async function removeLink(name: string, runDir: string, look: WireguardLook): Promise<void> {
  const ofProcess = hasProcess(name, runDir);
  const { ok, stderr } = await run("ip", ["link", "del", "dev", name]);
  if (ofProcess) await killWireguardGo(name, runDir);
  look.forget(name);
  if (!ok && !/Cannot find device|does not exist/i.test(stderr)) throw new IsthmusError("KernelRefused", `ip link del ${name}: ${stderr.trim()}`);
}

/** Writes only the peers given; others keep their sessions. */
export async function applyPeers(name: string, operations: readonly PeerOperation[], look: WireguardLook): Promise<void> {
  if (look.isMute(name)) throw new IsthmusError("KernelRefused", `wireguard-go ${name}: does not answer`);
  if (isUserspace(name)) {
    return configureUserspace(name, operations.map(userspacePeer).join("\n"), TOLD_MS).catch((thrown: unknown) => {
      look.suspect(name);
      throw thrown;
    });
  }
  // `wg set` takes many peers at once; an argument list is bounded, so they go in portions.
  for (let i = 0; i < operations.length; i += 50) {
    await must("wg", ["set", name, ...operations.slice(i, i + 50).flatMap(kernelPeer)]);
  }
}

/** The UAPI appends to the allowed IPs of a peer unless told to replace them; `wg` always rewrites them (DATAPLANE §5). */
function userspacePeer(operation: PeerOperation): string {
  if (operation.op === "peer.remove") return `public_key=${hexKey(operation.publicKey)}\nremove=true`;
  const { peer } = operation;
  const key = `public_key=${hexKey(peer.publicKey)}`;
  const lines = [key];
  if (operation.op === "peer.reset") lines.push("remove=true", key);
  const endpoint = operation.op === "peer.set" ? operation.endpoint : peer.endpoint;
  if (operation.op === "peer.set") lines.push("update_only=true");
  if (operation.op === "peer.set" && operation.before.presharedKey === true) lines.push(`preshared_key=${"0".repeat(64)}`);
  if (endpoint !== undefined) lines.push(`endpoint=${endpoint}`);
  lines.push(`persistent_keepalive_interval=${peer.keepalive}`);
  const whole = operation.op !== "peer.set" || operation.remove.length > 0;
  if (whole) lines.push("replace_allowed_ips=true");
  for (const cidr of whole ? peer.allowedIps : operation.add) lines.push(`allowed_ip=${cidr}`);
  return lines.join("\n");
}

function kernelPeer(operation: PeerOperation): string[] {
  if (operation.op === "peer.remove") return ["peer", operation.publicKey, "remove"];
  const { peer } = operation;
  const words = operation.op === "peer.reset" ? ["peer", peer.publicKey, "remove"] : [];
  words.push("peer", peer.publicKey, "persistent-keepalive", String(peer.keepalive));
  const endpoint = operation.op === "peer.set" ? operation.endpoint : peer.endpoint;
  if (endpoint !== undefined) words.push("endpoint", endpoint);
  // An empty file is no key: wg(8).
  if (operation.op === "peer.set" && operation.before.presharedKey === true) words.push("preshared-key", "/dev/null");
  const changed = operation.op !== "peer.set" || operation.add.length > 0 || operation.remove.length > 0;
  if (changed) words.push("allowed-ips", peer.allowedIps.join(","));
  return words;
}

function hexKey(key: WgPublicKey): string {
  return Buffer.from(key, "base64").toString("hex");
}
