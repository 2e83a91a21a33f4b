/**
 * The product in the lab, used as a user would: a controller, one token per site, `isthmus join` on every node, manifests.
 * Nothing here tells the product that it is in a lab.
 */
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseAllDocuments } from "yaml";
import { type Client, clientFor } from "../cli/client.ts";
import { IsthmusError } from "../mesh/errors.ts";
import { API_VERSION, type Condition } from "../mesh/model/meta.ts";
import type { Resource } from "../mesh/model/resources.ts";
import { installService, startService } from "./machine.ts";
import { hostPaths, REPOSITORY } from "./names.ts";
import { each, eventually } from "./shell.ts";
import type { LabState } from "./state.ts";
import { type Host, type Topology, WAN } from "./topology.ts";

export const CONTROLLER_PORT = 8443;
/** As the guide's access key: good for many joins. */
const TOKEN_USES = 1000;

const INTERNET_SERVER = fileURLToPath(new URL("inet-server.ts", import.meta.url));
/** The launcher, as the installed units have it. */
const CLI = `exec "${REPOSITORY}/isthmus"`;

/** What the host runs from its first boot on. Agents come later, with a token. */
export function serviceOf(host: Host, joined: boolean): string | undefined {
  if (host.role === "internet") return `exec "${process.execPath}" "${INTERNET_SERVER}"\n`;
  if (host.role !== "controller" || !joined) return undefined;
  const address = host.nics.find((nic) => nic.segment === WAN)?.address ?? "";
  return `${PRELUDE}${CLI} controller run --listen 0.0.0.0:${CONTROLLER_PORT} --advertise ${address}:${CONTROLLER_PORT}\n`;
}

/** A service manager gives a unit a clean environment. */
const PRELUDE = `export PATH="${REPOSITORY}/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/root\n`;

/**
 * The first start joins; every later one (crash, reboot) is what the installed unit would run. A node that left, or was
 * removed, stays away as one whose unit is gone.
 */
function agentService(node: string): string {
  return `${PRELUDE}if [ -e /var/lib/isthmus/identity.json ]; then touch /var/lib/lab/joined; ${CLI} agent run; fi
if [ -e /var/lib/lab/joined ]; then echo "this node is no member any more"; rm -f /run/lab/on; exit 0; fi
( ${CLI} join --token-file /var/lib/lab/token --name ${node} ) && touch /var/lib/lab/joined
`;
}

export function controllerClient(socket: string): Client {
  return clientFor({ name: "lab", socket });
}

export async function waitForController(state: LabState, socket: string, signal?: AbortSignal): Promise<Client> {
  const client = controllerClient(socket);
  await withLog(state, controllerName(state), () =>
    eventually(
      "the controller answers",
      20_000,
      async () => {
        if (!existsSync(socket)) return undefined;
        return client.call("GET", "/healthz").then(
          () => true,
          () => undefined,
        );
      },
      { everyMs: 25, signal },
    ),
  );
  return client;
}

export function controllerName(state: LabState): string {
  return state.topology.hosts.find((host) => host.role === "controller")?.name ?? "ctl";
}

/** Site objects from the topology. */
export function siteDocuments(topology: Topology): unknown[] {
  return topology.sites.map((site) => ({
    apiVersion: API_VERSION,
    kind: "Site",
    metadata: { name: site.name },
    spec: {
      kind: site.kind,
      ...(site.region === undefined ? {} : { region: site.region }),
      ...(site.priority === undefined ? {} : { priority: site.priority }),
      ...(site.subnet === undefined ? {} : { subnets: [site.subnet] }),
    },
  }));
}

/** A token per site and set of labels; gives back the token of each node. */
export async function makeTokens(client: Client, topology: Topology): Promise<Map<string, string>> {
  const nodes = topology.hosts.filter((host) => host.role === "node");
  const groups = Map.groupBy(nodes, (node) => JSON.stringify([node.site, node.labels]));
  const tokens = new Map<string, string>();
  const expires = new Date(Date.now() + 24 * 3_600_000).toISOString();
  for (const members of groups.values()) {
    const { site, labels } = members[0]!;
    const spec = { site, uses: Math.max(TOKEN_USES, 2 * members.length), expires, ...(Object.keys(labels).length === 0 ? {} : { labels }) };
    const { token } = (await client.call("POST", "/v1/tokens", { spec })) as { token: string };
    for (const member of members) tokens.set(member.name, token);
  }
  return tokens;
}

/** Puts the token on the node's disk and starts the join there. */
export async function startAgent(lab: string, node: string, token: string): Promise<void> {
  await writeFile(`${hostPaths(lab, node).lib}/lab/token`, `${token}\n`, { mode: 0o600 });
  await installService(lab, node, agentService(node));
  await startService(lab, node);
}

type Named = Resource & { readonly status?: { readonly conditions?: readonly Condition[] } };

async function list(client: Client, plural: string): Promise<Named[]> {
  return ((await client.call("GET", `/v1/resources/${plural}`)) as { items: Named[] }).items;
}

const isReady = (object: Named): boolean =>
  object.status?.conditions?.some((condition) => condition.type === "Ready" && condition.status === "True") === true;

const whyNot = (object: Named): string => {
  const condition = object.status?.conditions?.find((one) => one.type === "Ready" && one.status !== "True");
  return condition === undefined ? "no status yet" : `${condition.reason}${condition.message === undefined ? "" : `: ${condition.message}`}`;
};

/** Waits until every node of the topology is Ready; calls back with how many are. @throws IsthmusError with the first one's log. */
export async function waitForNodes(
  state: LabState,
  client: Client,
  progress: (ready: number, total: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  const wanted = state.topology.hosts.filter((host) => host.role === "node").map((host) => host.name);
  let missing = wanted;
  let last = new Map<string, string>();
  try {
    await eventually(
      "all nodes are ready",
      30_000 + 500 * wanted.length,
      async () => {
        const nodes = await list(client, "meshnodes");
        const ready = new Set(nodes.filter(isReady).map((node) => String(node.metadata.name)));
        last = new Map(nodes.map((node) => [String(node.metadata.name), whyNot(node)]));
        missing = wanted.filter((name) => !ready.has(name));
        progress(wanted.length - missing.length, wanted.length);
        return missing.length === 0 ? true : undefined;
      },
      { everyMs: 50, signal },
    );
  } catch (error) {
    signal?.throwIfAborted();
    const first = missing[0];
    if (first === undefined) throw error;
    const why = last.get(first);
    throw new IsthmusError("Timeout", `${first} is not ready: ${why ?? "it has not joined"}\n${await logTail(state, first)}`, {
      cause: error,
      remedy: `See: isthmus lab logs ${first}.`,
    });
  }
}

const isConnected = (object: Named): boolean => object.status !== undefined && "connected" in object.status && object.status.connected === true;

const RECONNECT_MS = 10_000;

/**
 * After the controller was away: waits until it answers, and for a while until the nodes whose agents run are connected again,
 * so that what is asked next is answered.
 */
export async function waitForReconnection(state: LabState, socket: string, running: readonly string[]): Promise<void> {
  const client = await waitForController(state, socket);
  const connected = async (): Promise<true | undefined> => {
    const nodes = await list(client, "meshnodes");
    const away = nodes.filter((node) => running.includes(String(node.metadata.name)) && !isConnected(node));
    return away.length === 0 ? true : undefined;
  };
  // A node that is cut off from the controller stays away: that is no error.
  await eventually("the nodes are connected again", RECONNECT_MS, connected, { everyMs: 50 }).catch(() => undefined);
}

interface Document {
  readonly kind: string;
  readonly metadata: { readonly name: string };
}

/**
 * Applies documents of files and waits until each intent is Ready. What is not Ready in time is given back, with the reason:
 * an intent that some nodes cannot follow (two of them behind NAT, say) is no reason to do without the rest.
 */
export async function applyManifests(client: Client, files: readonly string[], deadlineMs: number, signal?: AbortSignal): Promise<string[]> {
  const documents: Document[] = [];
  for (const file of files) {
    const text = await readFile(resolve(REPOSITORY, file), "utf8");
    documents.push(...parseAllDocuments(text).map((document) => document.toJS() as Document));
  }
  if (documents.length === 0) return [];
  await client.call("POST", "/v1/apply", { documents });
  let waiting: string[] = [];
  const askAll = async (): Promise<true | undefined> => {
    waiting = [];
    for (const { kind, metadata } of documents) {
      if (kind === "Site" || kind === "MeshNetwork") continue;
      const object = (await client.call("GET", `/v1/resources/${kind.toLowerCase()}s/${metadata.name}`)) as Named;
      if (!isReady(object)) waiting.push(`${kind} ${metadata.name}: ${whyNot(object)}`);
    }
    return waiting.length === 0 ? true : undefined;
  };
  await eventually("the manifests are in effect", deadlineMs, askAll, { everyMs: 50, signal }).catch((error: unknown) => {
    signal?.throwIfAborted();
    if (!(error instanceof IsthmusError) || error.code !== "Timeout") throw error;
  });
  return waiting;
}

/** Starts every agent; many at once, because joins may come as they like. */
export async function startAgents(state: LabState, tokens: ReadonlyMap<string, string>): Promise<void> {
  await each([...tokens], 8, ([node, token]) => startAgent(state.name, node, token));
}

async function withLog<T>(state: LabState, host: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new IsthmusError("Timeout", `${error instanceof Error ? error.message : String(error)}\n${await logTail(state, host)}`, { cause: error });
  }
}

async function logTail(state: LabState, host: string): Promise<string> {
  const text = await readFile(hostPaths(state.name, host).serviceLog, "utf8").catch(() => "");
  const lines = text.trimEnd().split("\n").slice(-8);
  return `last lines of ${host}'s log:\n${lines.map((line) => `  ${line}`).join("\n")}`;
}
