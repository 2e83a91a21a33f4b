/** POST /v1/join and /v1/renew: the only routes that need no certificate. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { IsthmusError, asIsthmusError } from "../../mesh/errors.ts";
import { JoinRequest } from "../../mesh/model/wire.ts";
import { createJoinLimit } from "../join/limit.ts";
import { NETWORK } from "../reconcile/keys.ts";
import { compileInput } from "../reconcile/planner.ts";
import { OPEN_BODY_LIMIT, remoteAddress } from "./http.ts";
import type { Services } from "./services.ts";

export function joinRoutes(app: FastifyInstance, services: Services): void {
  const { joins, planner, hub, authority, store, mirror, events, audit, recovery } = services;

  const joinLimit = createJoinLimit(() => performance.now());

  async function answer(request: FastifyRequest, reply: FastifyReply, withToken: boolean): Promise<FastifyReply> {
    const parsed = JoinRequest.safeParse(request.body);
    if (!parsed.success) {
      const faults = parsed.error.issues.map((issue) => ({ path: issue.path.join("."), message: issue.message }));
      throw new IsthmusError("BadRequest", `the join request is not valid: ${faults[0]?.path} ${faults[0]?.message}`, { faults });
    }
    const address = remoteAddress(request.socket);
    using _place = joinLimit.begin(address);
    const { token, ...body } = parsed.data;
    const joined = await joins.join(withToken && token !== undefined ? { ...body, token } : body, address);
    const { name } = joined.node.metadata;
    if (joined.action === "joined") {
      audit.record({ who: `node/${name}`, action: "join", kind: "MeshNode", name, after: joined.node, revision: joined.revision });
      events.record(undefined, { type: "Normal", reason: "Joined", message: `${name} joined site ${joined.node.spec.site}`, about: `node/${name}` });
    }
    await planner.settled(joined.revision);
    const { recovering: _, ...position } = await store.state();
    const head = {
      node: name,
      network: NETWORK,
      position: recovery.sealed(position),
      certificate: joined.certificate,
      roots: authority.roots,
      controllers: compileInput(mirror).controllers,
    };
    // The views' texts are made once per revision and shared by all answers.
    const views = (hub.output?.audience.get(body.name) ?? []).flatMap((id) => {
      const view = hub.view(id);
      return view === undefined ? [] : [`${JSON.stringify(id)}:${view.json()}`];
    });
    return reply.type("application/json").send(`${JSON.stringify(head).slice(0, -1)},"views":{${views.join(",")}}}`);
  }

  const limit = {
    bodyLimit: OPEN_BODY_LIMIT,
    // Before the body is read.
    onRequest: (request: FastifyRequest, _reply: FastifyReply, next: (error?: Error) => void): void => {
      try {
        joinLimit.admit(remoteAddress(request.socket));
        next();
      } catch (thrown) {
        next(asIsthmusError(thrown));
      }
    },
  };
  app.post("/v1/join", limit, (request, reply) => answer(request, reply, true));
  app.post("/v1/renew", limit, (request, reply) => answer(request, reply, false));
}
