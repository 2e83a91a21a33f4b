/** Health, metrics, status, events, diff, backup, recovery, the API's own description. */
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import manifest from "../../package.json" with { type: "json" };
import type { Kind } from "../../mesh/model/resources.ts";
import { RECOVERY_CAUSE_HEADER, RECOVERY_HEADER } from "../../mesh/model/answers.ts";
import { openApiDocument } from "../../mesh/model/openapi.ts";
import { kindNamed } from "../../mesh/model/parse.ts";
import { IsthmusError } from "../../mesh/errors.ts";
import { kindFolder } from "../reconcile/keys.ts";
import { parseBody } from "./body.ts";
import { diff } from "./diff.ts";
import { requireRole } from "./http.ts";
import { streamLines } from "./lines.ts";
import { actorName, type Services } from "./services.ts";

const DiffBody = z.strictObject({
  documents: z.array(z.unknown()).max(10_000).default([]),
  delete: z
    .array(z.strictObject({ kind: z.string(), name: z.string() }))
    .max(1_000)
    .default([]),
});

interface EventsRoute {
  Querystring: { about?: string; since?: string; watch?: string };
}

export function opsRoutes(app: FastifyInstance, services: Services): void {
  const { store, mirror, agents, events, recovery, hub, audit } = services;

  // Whoever asks anything during a recovery is told: the answers may be of yesterday.
  app.addHook("onSend", (_request, reply, _payload, done) => {
    if (recovery.active) void reply.header(RECOVERY_HEADER, String(recovery.missing().length)).header(RECOVERY_CAUSE_HEADER, recovery.cause);
    done();
  });

  app.get("/healthz", () => Promise.resolve({ ok: true }));
  app.get("/readyz", async (_request, reply) => {
    const { recovering, ...position } = await store.state();
    const ready = hub.output !== undefined;
    return reply.status(ready ? 200 : 503).send({ ready, recovering, position });
  });
  app.get("/metrics", async (request, reply) => {
    requireRole(request, "viewer");
    return reply.type("text/plain; version=0.0.4").send(await services.metrics());
  });
  app.get("/v1/openapi.json", () => Promise.resolve(openApiDocument(manifest.version)));

  app.get("/v1/status", async (request) => {
    requireRole(request, "viewer");
    const { recovering, ...position } = await store.state();
    return {
      controller: services.name,
      version: manifest.version,
      position,
      recovering,
      ...(recovering ? { missing: recovery.missing(), surplus: Object.fromEntries(hub.surplus()) } : {}),
      nodes: { total: mirror.folder(kindFolder("MeshNode")).size, connected: agents.sessions.size },
      advertise: services.advertise(),
      pin: services.authority.pin,
      roots: services.authority.roots,
      certificate: { expires: new Date(services.authority.server.expires).toISOString() },
      faults: agents.counters,
    };
  });

  app.get<EventsRoute>("/v1/events", (request, reply) => {
    requireRole(request, "viewer");
    const { about, watch } = request.query;
    const since = request.query.since === undefined ? undefined : Number(request.query.since);
    if (since !== undefined && !Number.isFinite(since))
      throw new IsthmusError("BadRequest", `since=${request.query.since}: must be milliseconds since 1970`);
    if (watch === undefined || watch === "0") return reply.send({ items: events.list({ about, since }) });
    reply.hijack();
    streamLines(reply.raw, (write) => {
      for (const event of events.list({ about, since })) write(event);
      return events.subscribe((event) => {
        if (about === undefined || event.about === about) write(event);
      });
    });
    return;
  });

  app.post("/v1/diff", async (request) => {
    requireRole(request, "viewer");
    const body = parseBody(DiffBody, request.body);
    const deletions = body.delete.map(({ kind, name }): { kind: Kind; name: string } => {
      const known = kindNamed(kind);
      if (known === undefined) throw new IsthmusError("UnknownKind", `there is no kind ${JSON.stringify(kind)}`);
      return { kind: known, name };
    });
    return { nodes: await diff(services, body.documents, deletions) };
  });

  app.get("/v1/backup", async (request, reply) => {
    const who = requireRole(request, "admin");
    audit.record({ who: actorName(who), action: "backup" });
    return reply.type("application/octet-stream").send(await services.backup());
  });

  app.post("/v1/recovery/confirm", async (request) => {
    const who = requireRole(request, "admin");
    const missing = recovery.missing();
    audit.record({ who: actorName(who), action: "confirm-recovery", after: { missing } });
    await recovery.confirm();
    const { recovering, ...position } = await store.state();
    return { recovering, position, missing };
  });
}
