import type { FieldFault } from "../../errors.ts";
import { contains, overlaps, parseCidr } from "../../net/ip.ts";
import { fault, type Path } from "../faults.ts";
import type { MeshNetworkSpec } from "../mesh-network.ts";
import { notReserved } from "./rules.ts";

const UNIQUE_LOCAL = parseCidr("fc00::/7");
const MARK_BITS = 7;
const LINK_PORTS = 63;

export function validateMeshNetwork(spec: MeshNetworkSpec): FieldFault[] {
  return [...ranges(spec), ...ports(spec.ports), ...markMask(spec.markMask)];
}

function ranges(spec: MeshNetworkSpec): FieldFault[] {
  const overlayPath = ["spec", "overlay", "v4"];
  const linksPath = ["spec", "links", "v4"];
  const faults = [...v4Range(spec.overlay.v4, 29, overlayPath), ...v4Range(spec.links.v4, 28, linksPath)];
  if (faults.length === 0 && overlaps(parseCidr(spec.overlay.v4), parseCidr(spec.links.v4))) {
    faults.push(fault(linksPath, `overlaps overlay.v4 ${spec.overlay.v4}; the two ranges must be apart`, spec.links.v4));
  }
  const v6 = spec.overlay.v6;
  if (v6 === undefined) return faults;
  const path = ["spec", "overlay", "v6"];
  const range = parseCidr(v6);
  if (range.family !== 6) faults.push(fault(path, "must be an IPv6 prefix", v6));
  else if (!contains(UNIQUE_LOCAL, range)) faults.push(fault(path, "must be unique local addresses, inside fc00::/7 (RFC 4193)", v6));
  else if (range.bits !== 48) faults.push(fault(path, "must be a /48: mesh and link addresses take a /64 each", v6));
  return faults;
}

/** Large enough for a few nodes, small enough to be meant, and nobody's loopback or multicast. */
function v4Range(text: string, most: number, path: Path): FieldFault[] {
  const range = parseCidr(text);
  if (range.family !== 4) return [fault(path, "must be an IPv4 prefix", text)];
  if (range.bits > most) return [fault(path, `is too small: at least a /${most}`, text)];
  if (range.bits < 8) return [fault(path, "is too large: at most a /8", text)];
  return notReserved([text], path).map((found) => ({ ...found, path: found.path.replace(/\[0\]$/, "") }));
}

function ports(own: MeshNetworkSpec["ports"]): FieldFault[] {
  const faults: FieldFault[] = [];
  const path = ["spec", "ports"];
  const last = own.links + LINK_PORTS;
  if (last > 65535)
    faults.push(fault([...path, "links"], `must be at most ${65535 - LINK_PORTS}: links use the ${LINK_PORTS} ports after it`, own.links));
  if (own.mesh === own.gateway) faults.push(fault([...path, "gateway"], "is the port of the mesh too; choose another", own.gateway));
  for (const name of ["mesh", "gateway"] as const) {
    if (own[name] > own.links && own[name] <= last)
      faults.push(fault([...path, name], `is inside the ports of the links, ${own.links + 1} to ${last}`, own[name]));
  }
  if (own.echo === own.state) faults.push(fault([...path, "state"], "is the port of the path probes too; choose another", own.state));
  return faults;
}

function markMask(text: string): FieldFault[] {
  const bits = Number.parseInt(text, 16).toString(2).replace(/0+$/, "");
  if (/^1+$/.test(bits) && bits.length >= MARK_BITS) return [];
  return [fault(["spec", "markMask"], `must have at least ${MARK_BITS} adjacent bits set and no others, for example 0x7f000000`, text)];
}
