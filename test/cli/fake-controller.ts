/** A controller made of a map: follows the API's contract over a unix socket, for tests of the command line. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { asIsthmusError, IsthmusError } from "../../mesh/errors.ts";
import type { EventRecord, NodeDiff } from "../../mesh/model/answers.ts";
import { invalidDocuments, parseDocuments, parseSpec } from "../../mesh/model/parse.ts";
import { KINDS, type Kind } from "../../mesh/model/resources.ts";
import { parseSelector, selects } from "../../mesh/model/selector.ts";

export interface Stored {
  apiVersion: string;
  kind: Kind;
  metadata: { name: string; labels?: Record<string, string>; creationTimestamp?: string; resourceVersion?: string };
  spec: Record<string, unknown>;
  status?: Record<string, unknown>;
}

export interface FakeController extends AsyncDisposable {
  readonly socket: string;
  readonly objects: Map<string, Stored>;
  readonly events: EventRecord[];
  /** Every request that changed something: `POST /v1/apply`. */
  readonly writes: string[];
  /** Paths that were read. */
  readonly reads: string[];
  readonly bodies: unknown[];
  diff: NodeDiff[];
  /** Given with every result of an apply. */
  warnings: string[];
  explanation: unknown;
  /** Sends a change to all who watch. */
  put(object: Stored, type?: "ADDED" | "MODIFIED" | "DELETED"): void;
  watchers(): number;
  /** Breaks the connections of all who watch. */
  hangUp(): void;
}

export async function fakeController(now: () => number): Promise<FakeController> {
  const folder = await mkdtemp(join(tmpdir(), "ist-b-"));
  const socket = join(folder, "c.sock");
  const watching = new Set<{ plural: string; response: ServerResponse }>();
  let revision = 10;
  const fake: FakeController = {
    socket,
    objects: new Map(),
    events: [],
    writes: [],
    reads: [],
    bodies: [],
    diff: [],
    warnings: [],
    explanation: undefined,
    put: (object, type = "MODIFIED") => {
      revision++;
      fake.objects.set(`${KINDS[object.kind].plural}/${object.metadata.name}`, object);
      for (const { plural, response } of watching)
        if (plural === KINDS[object.kind].plural) response.write(`${JSON.stringify({ type, object, revision })}\n`);
    },
    watchers: () => watching.size,
    hangUp: () => {
      for (const entry of watching) {
        entry.response.destroy();
        watching.delete(entry);
      }
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
      await rm(folder, { recursive: true, force: true });
    },
  };
  const server: Server = createServer((request, response) => {
    void handle(request, response).catch((thrown: unknown) => {
      const error = asIsthmusError(thrown);
      send(response, error.http, error.toJSON());
    });
  });

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://fake");
    const [, , what = "", plural = "", name, more] = url.pathname.split("/").map(decodeURIComponent);
    const body = await read(request);
    if (request.method === "GET") fake.reads.push(url.pathname);
    else {
      fake.writes.push(`${request.method} ${url.pathname}${url.search}`);
      fake.bodies.push(body);
    }
    switch (`${request.method} ${what}`) {
      case "GET status":
        return send(response, 200, { version: "9.9.9", advertise: ["127.0.0.1:8443"] });
      case "GET events": {
        const about = url.searchParams.get("about");
        return send(response, 200, { items: fake.events.filter((event) => about === null || event.about === about) });
      }
      case "GET resources":
        if (url.searchParams.get("watch") === "1") return watch(plural, response);
        if (name !== undefined) return send(response, 200, one(plural, name));
        return send(response, 200, { items: list(plural, url.searchParams.get("labelSelector")), revision });
      case "DELETE resources":
        one(plural, name ?? "");
        if (url.searchParams.get("dryRun") === null) fake.objects.delete(`${plural}/${name}`);
        return send(response, 200, {});
      case "PATCH resources":
        return send(
          response,
          200,
          label(one(plural, name ?? ""), more ?? "", body as { set: Record<string, string>; remove: string[]; overwrite?: boolean }),
        );
      case "POST apply":
        return send(response, 200, apply(body as { documents: unknown[]; dryRun?: boolean }));
      case "POST diff":
        return send(response, 200, { nodes: fake.diff });
      case "POST tokens":
        if (name === undefined) return send(response, 200, token(body as { name?: string; spec: unknown }));
        return send(response, 200, {});
      case "POST nodes": {
        const node = one("meshnodes", plural);
        if (name === "restart-wireguard") return send(response, 200, { wireguard: "userspace", interfaces: ["ism0", "ismgw0"] });
        node.spec["cordoned"] = name === "drain";
        return send(response, 200, node);
      }
      case "GET nodes":
        one("meshnodes", plural);
        if (fake.explanation instanceof IsthmusError) throw fake.explanation;
        return send(response, 200, fake.explanation);
      case "GET backup":
        response.writeHead(200, { "content-type": "application/octet-stream" });
        response.end(Buffer.from([0, 1, 2, 255]));
        return;
      default:
        throw new IsthmusError("NotFound", `${request.method} ${url.pathname} is not part of this API`);
    }
  }

  function one(plural: string, name: string): Stored {
    const found = fake.objects.get(`${plural}/${name}`);
    if (found === undefined) throw new IsthmusError("NotFound", `there is no ${plural} ${name}`);
    return found;
  }

  function list(plural: string, selector: string | null): Stored[] {
    const wanted = parseSelector(selector ?? "");
    return [...fake.objects]
      .filter(([key]) => key.startsWith(`${plural}/`))
      .map(([, object]) => object)
      .filter((object) => selects(wanted, object.metadata.labels ?? {}));
  }

  function watch(plural: string, response: ServerResponse): void {
    const entry = { plural, response };
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    response.flushHeaders();
    watching.add(entry);
    response.on("close", () => watching.delete(entry));
  }

  function label(object: Stored, path: string, patch: { set: Record<string, string>; remove: string[]; overwrite?: boolean }): Stored {
    if (path !== "labels") throw new IsthmusError("NotFound", path);
    const labels = { ...object.metadata.labels };
    for (const [key, value] of Object.entries(patch.set)) {
      if (labels[key] !== undefined && labels[key] !== value && patch.overwrite !== true)
        throw new IsthmusError("Conflict", `label ${key} is ${labels[key]} already`, { remedy: "Use --overwrite to change it." });
      labels[key] = value;
    }
    for (const key of patch.remove) delete labels[key];
    object.metadata = { ...object.metadata, labels, resourceVersion: String(++revision) };
    return object;
  }

  function apply({ documents, dryRun }: { documents: unknown[]; dryRun?: boolean }): unknown {
    const parsed = parseDocuments(documents, { now: now() });
    if (parsed.faults.length > 0) throw invalidDocuments(parsed.faults, documents.length);
    const refused = parsed.resources.findIndex((each) => each.metadata.annotations?.["refuse"] !== undefined);
    if (refused >= 0)
      throw invalidDocuments([{ path: "spec.destinations[0]", message: "covers the controller", document: refused }], documents.length);
    const results = parsed.resources.map((resource) => {
      const key = `${KINDS[resource.kind].plural}/${resource.metadata.name}`;
      const before = fake.objects.get(key);
      const action = before === undefined ? "created" : JSON.stringify(before.spec) === JSON.stringify(resource.spec) ? "unchanged" : "configured";
      if (dryRun !== true && action !== "unchanged") fake.objects.set(key, resource);
      return {
        kind: resource.kind,
        name: resource.metadata.name,
        action,
        object: resource,
        ...(fake.warnings.length === 0 ? {} : { warnings: fake.warnings }),
      };
    });
    return { revision, results };
  }

  function token({ name = "made-up", spec }: { name?: string; spec: unknown }): unknown {
    const parsed = parseSpec("JoinToken", spec, { now: now() });
    if (Array.isArray(parsed)) throw invalidDocuments(parsed, 1);
    return {
      object: { apiVersion: "isthmus.dev/v1alpha1", kind: "JoinToken", metadata: { name }, spec: parsed, status: { used: 0, epoch: 1 } },
      token: "ist1.secret.00000000",
    };
  }

  await new Promise<void>((done) => server.listen(socket, done));
  return fake;
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

async function read(request: IncomingMessage): Promise<unknown> {
  let text = "";
  for await (const part of request) text += String(part);
  return text === "" ? undefined : JSON.parse(text);
}
