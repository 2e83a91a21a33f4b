/** What a controller makes at its first start, and how it finds its own addresses. */
import { networkInterfaces } from "node:os";
import { IsthmusError } from "../mesh/errors.ts";
import { MeshNetworkSpec } from "../mesh/model/mesh-network.ts";
import { API_VERSION } from "../mesh/model/meta.ts";
import { parseSpec } from "../mesh/model/parse.ts";
import type { Resource } from "../mesh/model/resources.ts";
import { formatCidr } from "../mesh/net/ip.ts";
import type { ControllerRecord } from "./join/records.ts";
import { commit } from "./reconcile/draft.ts";
import { FOLDER, NETWORK, resourceKey } from "./reconcile/keys.ts";
import type { Mirror } from "./reconcile/mirror.ts";
import type { Store } from "./store/types.ts";

/** Ranges that an operator may choose at the first start. */
export interface NetworkOptions {
  readonly overlayV4?: string;
  readonly overlayV6?: string;
  readonly linksV4?: string;
}

interface Sources {
  readonly now: () => number;
  readonly newUid: () => string;
  readonly randomBytes: (size: number) => Uint8Array;
}

/** Makes the network object when the store has none. @returns it @throws {IsthmusError} `Invalid` for a bad range */
export async function ensureNetwork(
  store: Store,
  mirror: Mirror,
  { now, newUid, randomBytes }: Sources,
  options: NetworkOptions,
): Promise<Resource<"MeshNetwork">> {
  const key = resourceKey("MeshNetwork", NETWORK);
  const stored = mirror.get(key);
  if (stored !== undefined) return stored.value as Resource<"MeshNetwork">;
  const overlay = { ...(options.overlayV4 === undefined ? {} : { v4: options.overlayV4 }), v6: options.overlayV6 ?? randomUla(randomBytes(5)) };
  const spec = parseSpec("MeshNetwork", { overlay, ...(options.linksV4 === undefined ? {} : { links: { v4: options.linksV4 } }) }, { now: now() });
  if (Array.isArray(spec)) throw new IsthmusError("Invalid", "the network's ranges are not valid", { faults: spec });
  const network: Resource<"MeshNetwork"> = {
    apiVersion: API_VERSION,
    kind: "MeshNetwork",
    metadata: {
      name: NETWORK as Resource["metadata"]["name"],
      uid: newUid(),
      generation: 1,
      creationTimestamp: new Date(now()).toISOString(),
      origin: "api",
    },
    spec: MeshNetworkSpec.parse(spec),
  };
  await commit(store, mirror, (draft) => {
    if (draft.read(key) === undefined) draft.write(key, network);
  });
  return network;
}

/** Writes under which addresses agents reach this controller; unchanged writes nothing. */
export async function announce(store: Store, mirror: Mirror, name: string, addresses: readonly string[]): Promise<void> {
  await commit(store, mirror, (draft) => draft.write(FOLDER.controllers + name, { addresses } satisfies ControllerRecord));
}

/** A random /48 of fd00::/8 (RFC 4193 §3.2.2). */
function randomUla(random: Uint8Array): string {
  const value = [0xfd, ...random.subarray(0, 5)].reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n) << 80n;
  return formatCidr({ family: 6, value, bits: 48 });
}

/** `ADDR:PORT` with port 0 allowed. @throws {IsthmusError} `Invalid` */
export function splitListen(text: string): { host: string; port: number } {
  const found = /^(?:\[(?<v6>[0-9a-fA-F:.]+)\]|(?<v4>[0-9.]+)):(?<port>\d{1,5})$/.exec(text)?.groups;
  const port = Number(found?.["port"]);
  if (found === undefined || port > 65_535)
    throw new IsthmusError("Invalid", `${JSON.stringify(text)} is no address to listen on`, {
      remedy: "Write ADDR:PORT, for example 0.0.0.0:8443 or [::]:8443.",
    });
  return { host: found["v6"] ?? found["v4"] ?? "", port };
}

/** The host of `HOST:PORT`. @throws {IsthmusError} `Invalid` */
export function hostName(address: string): string {
  const found = /^(?:\[(?<v6>[^\]]+)\]|(?<name>[^:[\]]+)):(?<port>\d{1,5})$/.exec(address)?.groups;
  if (found === undefined) throw new IsthmusError("Invalid", `${JSON.stringify(address)} is no address to advertise`, { remedy: "Write HOST:PORT." });
  return found["v6"] ?? found["name"] ?? "";
}

/** The address that is listened on; for a wildcard, the addresses of this machine that others can reach. */
export function foundAddresses(host: string): string[] {
  if (host !== "0.0.0.0" && host !== "::") return [host];
  const all = Object.entries(networkInterfaces()).flatMap(([name, addresses]) => (name.startsWith("ism") ? [] : (addresses ?? [])));
  const usable = all
    .filter((one) => !one.internal && !one.address.startsWith("fe80:") && (host === "::" || one.family === "IPv4"))
    .map((one) => one.address);
  return usable.length > 0 ? usable.slice(0, 8) : ["127.0.0.1"];
}
