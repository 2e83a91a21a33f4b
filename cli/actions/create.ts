/** `create site|route|egress`: a document from flags. Fails where the object exists: changing is `apply`'s work. */
import { IsthmusError } from "../../mesh/errors.ts";
import { API_VERSION } from "../../mesh/model/meta.ts";
import { parseDocument } from "../../mesh/model/parse.ts";
import type { Kind } from "../../mesh/model/resources.ts";
import { getObject } from "../api.ts";
import type { GlobalFlags } from "../cli.ts";
import { connect } from "../connect.ts";
import type { Io } from "../io.ts";
import { printResults, sendDocuments } from "./apply.ts";

interface MakeFlags extends GlobalFlags {
  readonly dryRun: boolean;
  readonly output?: string;
}

export interface SiteFlags extends MakeFlags {
  readonly kind: string;
  readonly region?: string;
  readonly zone?: string;
  readonly subnet?: readonly string[];
  readonly gateway?: Readonly<Record<string, string>>;
  readonly label?: Readonly<Record<string, string>>;
  readonly priority?: number;
  readonly grantAdvertise?: readonly string[];
}

export async function createSite(io: Io, name: string, flags: SiteFlags): Promise<number> {
  const { kind, region, zone, priority } = flags;
  const grants = flags.grantAdvertise === undefined ? undefined : { advertise: flags.grantAdvertise };
  return await make(
    io,
    "Site",
    name,
    { kind, region, zone, labels: flags.label, subnets: flags.subnet, gateways: flags.gateway, priority, grants },
    flags,
  );
}

export interface RouteFlags extends MakeFlags {
  readonly to: readonly string[];
  readonly via: readonly string[];
  readonly except?: readonly string[];
  readonly nodeSelector?: Readonly<Record<string, string>>;
  readonly health?: string;
  readonly strategy?: string;
}

export async function createRoute(io: Io, name: string, flags: RouteFlags): Promise<number> {
  const gateways = flags.via.map((via) => (/^[\d.]+$|:/.test(via) ? { address: via } : { node: via }));
  const health = flags.health === undefined ? undefined : { type: flags.health };
  return await make(
    io,
    "MeshRoute",
    name,
    { destinations: flags.to, excludedDestinations: flags.except, gateways, nodeSelector: flags.nodeSelector, health, strategy: flags.strategy },
    flags,
  );
}

export interface EgressFlags extends MakeFlags {
  readonly to: readonly string[];
  readonly except?: readonly string[];
  readonly gateway?: readonly string[];
  readonly gatewaySite?: readonly string[];
  readonly snat?: string;
}

const FIRST_PRIORITY = 100;

/** The first selector is preferred: priorities go down from 100 in the order of the flags. */
export async function createEgress(io: Io, name: string, flags: EgressFlags): Promise<number> {
  const selectors = (flags.gateway ?? []).map((text) => ({ nodeSelector: labels(text) }));
  const sites = (flags.gatewaySite ?? []).map((site) => ({ site }));
  const gateways = [...selectors, ...sites].map((gateway, i) => ({ ...gateway, priority: FIRST_PRIORITY - i }));
  if (gateways.length === 0)
    throw new IsthmusError("BadRequest", "no gateway is given", { remedy: "Give --gateway KEY=VALUE or --gateway-site SITE." });
  const how = flags.snat?.toLowerCase();
  const snat =
    how === undefined
      ? undefined
      : how === "masquerade"
        ? { type: "Masquerade" }
        : how === "none"
          ? { type: "None" }
          : { type: "Address", address: flags.snat };
  return await make(io, "EgressGateway", name, { destinations: flags.to, excludedDestinations: flags.except, gateways, snat }, flags);
}

async function make(io: Io, kind: Kind, name: string, spec: Readonly<Record<string, unknown>>, flags: MakeFlags): Promise<number> {
  const given = Object.fromEntries(Object.entries(spec).filter(([, value]) => value !== undefined));
  const raw = { apiVersion: API_VERSION, kind, metadata: { name }, spec: given };
  const parsed = parseDocument(raw, { index: 0 }, { now: io.now() });
  if (Array.isArray(parsed)) {
    const faults = parsed.map(({ path, message, value, suggestion }) => ({
      path,
      message,
      value,
      ...(suggestion === undefined ? {} : { suggestion }),
    }));
    throw new IsthmusError("Invalid", `${kind} ${name} is not valid; nothing was made`, { faults, remedy: invalidRemedy(kind) });
  }
  const client = await connect(io, flags);
  const there = await getObject(client, kind, name).then(
    () => true,
    (error: unknown) => {
      if (error instanceof IsthmusError && error.code === "NotFound") return false;
      throw error;
    },
  );
  if (there)
    throw new IsthmusError("AlreadyExists", `${kind} ${name} exists already`, { remedy: `Change it with \`isthmus apply -f\`, or delete it first.` });
  await printResults(io, await sendDocuments(client, [{ raw, where: { index: 0 } }], flags.dryRun), flags);
  return 0;
}

function invalidRemedy(kind: Kind): string {
  return `Correct the flags; \`isthmus explain --schema ${kind.toLowerCase()}.spec\` describes the fields.`;
}

function labels(text: string): Record<string, string> {
  const pairs = text.split(",").map((part) => part.split("="));
  const bad = pairs.find((pair) => pair.length !== 2 || pair[0] === "");
  if (bad !== undefined)
    throw new IsthmusError("BadRequest", `--gateway ${JSON.stringify(text)} is not KEY=VALUE`, { remedy: "Write for example --gateway egress=yes." });
  return Object.fromEntries(pairs.map(([key, value]) => [key ?? "", value ?? ""]));
}
