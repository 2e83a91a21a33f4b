/** Nodes: drain, uncordon, restart-wireguard, revoke, explain. */
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { IsthmusError } from "../../mesh/errors.ts";
import type { Resource } from "../../mesh/model/resources.ts";
import { Duration, IpAddress, type NodeName } from "../../mesh/model/scalars.ts";
import { revoked } from "../join/decide.ts";
import type { Revocation } from "../join/records.ts";
import { commit } from "../reconcile/draft.ts";
import { FOLDER, resourceKey } from "../reconcile/keys.ts";
import type { AgentSession } from "../stream/session.ts";
import { present } from "./apply.ts";
import { parseBody } from "./body.ts";
import { requireRole } from "./http.ts";
import { actorName, type Services } from "./services.ts";

const ASK_MS = 5_000;
/** One after the other, and a gateway's client has up to 65 interfaces. */
const RESTART_MS = 90_000;
const DrainBody = z.strictObject({ timeout: Duration.optional() });

type Node = Resource<"MeshNode">;
interface NodeRoute {
  Params: { name: string };
  Querystring: { destination?: string };
}

export function nodeRoutes(app: FastifyInstance, services: Services): void {
  const { store, mirror, audit, agents, events, now } = services;

  async function change(name: string, who: string, action: string, edit: (spec: Node["spec"]) => Node["spec"]): Promise<Resource | undefined> {
    const key = resourceKey("MeshNode", name);
    const { revision, result } = await commit(store, mirror, (draft) => {
      const before = draft.read(key) as Node | undefined;
      if (before === undefined) throw new IsthmusError("NotFound", `there is no node ${name}`);
      const spec = edit(before.spec);
      if (JSON.stringify(spec) === JSON.stringify(before.spec)) return undefined;
      const after: Node = { ...before, metadata: { ...before.metadata, generation: (before.metadata.generation ?? 1) + 1 }, spec };
      draft.write(key, after);
      return { before, after };
    });
    if (result !== undefined) {
      audit.record({ who, action, kind: "MeshNode", name, ...result, revision });
      events.record(undefined, {
        type: "Normal",
        reason: action === "drain" ? "Draining" : "Uncordoned",
        message: `${name}: ${action} by ${who}`,
        about: `node/${name}`,
      });
      await services.planner.settled(revision);
    }
    return present(services, "MeshNode", name);
  }

  app.post<NodeRoute>("/v1/nodes/:name/drain", async (request) => {
    const who = actorName(requireRole(request, "operator"));
    const { timeout } = parseBody(DrainBody, request.body);
    return change(request.params.name, who, "drain", (spec) => ({
      ...uncordoned(spec),
      cordoned: true,
      ...cordonedAt(spec, now()),
      ...(timeout === undefined ? {} : { drainTimeout: timeout }),
    }));
  });

  app.post<NodeRoute>("/v1/nodes/:name/uncordon", async (request) => {
    const who = actorName(requireRole(request, "operator"));
    return change(request.params.name, who, "uncordon", uncordoned);
  });

  app.post<NodeRoute>("/v1/nodes/:name/restart-wireguard", async (request) => {
    const who = actorName(requireRole(request, "operator"));
    const { name } = request.params;
    const node = mirror.get(resourceKey("MeshNode", name))?.value as Node | undefined;
    if (node === undefined) throw new IsthmusError("NotFound", `there is no node ${name}`);
    const drained = services.status.withStatus(node).status?.conditions?.find(({ type }) => type === "Drained");
    if (drained?.status !== "True")
      throw new IsthmusError("Conflict", `node ${name} is not drained: ${drained?.message ?? "others' traffic may go through it"}`, {
        remedy: `Run \`isthmus node restart-wireguard ${name}\`, which drains it first, or \`isthmus drain ${name}\`.`,
      });
    const answer = await connected(name, "its wireguard-go is started anew by its agent").ask("restart-wireguard", {}, RESTART_MS);
    audit.record({ who, action: "restart-wireguard", kind: "MeshNode", name, revision: mirror.revision });
    return answer;
  });

  function connected(name: string, why: string): AgentSession {
    const session = agents.session(name);
    if (session !== undefined) return session;
    throw new IsthmusError("Unreachable", `node ${name} is not connected, and ${why}`, {
      remedy: `Run \`isthmus status\` on ${name}: its own socket answers without a controller.`,
    });
  }

  app.post<NodeRoute>("/v1/nodes/:name/revoke", async (request) => {
    const who = actorName(requireRole(request, "admin"));
    const { name } = request.params;
    const { revision } = await commit(store, mirror, (draft) => {
      const node = draft.read(resourceKey("MeshNode", name)) as Node | undefined;
      if (node === undefined) throw new IsthmusError("NotFound", `there is no node ${name}`);
      draft.write(FOLDER.revoked + node.spec.tlsKey, { name, at: new Date(now()).toISOString() } satisfies Revocation);
    });
    audit.record({ who, action: "revoke", kind: "MeshNode", name, revision });
    events.record(undefined, {
      type: "Warning",
      reason: "CertificateRevoked",
      message: `the certificate of ${name} was revoked by ${who}`,
      about: `node/${name}`,
    });
    agents.refuse(name as NodeName, revoked(name));
    return present(services, "MeshNode", name);
  });

  app.get<NodeRoute>("/v1/nodes/:name/explain", async (request) => {
    requireRole(request, "viewer");
    const { name } = request.params;
    if (mirror.get(resourceKey("MeshNode", name)) === undefined) throw new IsthmusError("NotFound", `there is no node ${name}`);
    const destination = IpAddress.safeParse(request.query.destination);
    if (!destination.success)
      throw new IsthmusError(
        "BadRequest",
        `destination ${JSON.stringify(request.query.destination ?? "")}: ${destination.error.issues[0]?.message ?? "must be an address"}`,
      );
    return connected(name, "only the node knows which way it sends").ask("explain", { destination: destination.data }, ASK_MS);
  });
}

function uncordoned(spec: Node["spec"]): Node["spec"] {
  const { cordoned: _cordoned, cordonedAt: _cordonedAt, drainTimeout: _drainTimeout, ...rest } = spec;
  return rest;
}

/** Another timeout for a node that drains already is no other drain. */
function cordonedAt(spec: Node["spec"], now: number): Pick<Node["spec"], "cordonedAt"> {
  if (spec.cordoned !== true) return { cordonedAt: new Date(now).toISOString() };
  return spec.cordonedAt === undefined ? {} : { cordonedAt: spec.cordonedAt };
}
