/** Tokens and admin certificates: what lets somebody in. Secrets are shown once and kept as hashes. */
import { randomBytes } from "node:crypto";
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { IsthmusError } from "../../mesh/errors.ts";
import { AdminRole } from "../../mesh/model/answers.ts";
import { API_VERSION } from "../../mesh/model/meta.ts";
import { parseSpec } from "../../mesh/model/parse.ts";
import type { Resource } from "../../mesh/model/resources.ts";
import { ObjectName } from "../../mesh/model/scalars.ts";
import { formatJoinToken } from "../../mesh/model/token.ts";
import { recovering } from "../join/decide.ts";
import { secretHash, type AdminRecord, type Revocation, type SecretRecord } from "../join/records.ts";
import { ADMIN_DAYS } from "../pki/authority.ts";
import { readRequest } from "../pki/certificates.ts";
import { commit } from "../reconcile/draft.ts";
import { FOLDER, resourceKey } from "../reconcile/keys.ts";
import { parseBody } from "./body.ts";
import { requireRole } from "./http.ts";
import { actorName, type Services } from "./services.ts";

const TokenBody = z.strictObject({ name: ObjectName.optional(), spec: z.unknown() });
const AdminBody = z.strictObject({ name: ObjectName, role: AdminRole, csr: z.string().max(4096) });

type Token = Resource<"JoinToken">;

export function tokenRoutes(app: FastifyInstance, services: Services): void {
  const { store, mirror, audit, authority, now, newUid } = services;

  app.post("/v1/tokens", async (request) => {
    const who = requireRole(request, "operator");
    const body = parseBody(TokenBody, request.body);
    const spec = parseSpec("JoinToken", body.spec, { now: now() });
    if (Array.isArray(spec)) throw new IsthmusError("Invalid", "the token is not valid", { faults: spec });
    const { epoch } = await store.state();
    const secret = randomBytes(32).toString("base64url");
    const { revision, result: token } = await commit(store, mirror, (draft): Token => {
      if (services.recovery.active) throw recovering();
      const name = body.name ?? freeName(spec.site, (candidate) => draft.read(resourceKey("JoinToken", candidate)) !== undefined);
      if (draft.read(resourceKey("Site", spec.site)) === undefined) {
        throw new IsthmusError("NotFound", `there is no site ${spec.site}`, {
          remedy: `Make it first: isthmus create site ${spec.site} --kind onprem|cloud`,
        });
      }
      if (draft.read(resourceKey("JoinToken", name)) !== undefined)
        throw new IsthmusError("AlreadyExists", `there is a token ${name} already`, { remedy: "Choose another name, or leave it out." });
      const made: Token = {
        apiVersion: API_VERSION,
        kind: "JoinToken",
        metadata: {
          name: name as Token["metadata"]["name"],
          uid: newUid(),
          generation: 1,
          creationTimestamp: new Date(now()).toISOString(),
          origin: "api",
        },
        spec,
        status: { used: 0, epoch },
      };
      draft.write(resourceKey("JoinToken", name), made);
      draft.write(FOLDER.secrets + secretHash(secret), { token: name } satisfies SecretRecord);
      return made;
    });
    audit.record({ who: actorName(who), action: "create", kind: "JoinToken", name: token.metadata.name, after: token, revision });
    const text = formatJoinToken({ controllers: services.advertise(), secret, name: token.metadata.name, pin: authority.pin });
    return { object: token, token: text };
  });

  app.post<{ Params: { name: string } }>("/v1/tokens/:name/revoke", async (request) => {
    const who = requireRole(request, "operator");
    const key = resourceKey("JoinToken", request.params.name);
    const { revision, result } = await commit(store, mirror, (draft) => {
      const before = draft.read(key) as Token | undefined;
      if (before?.status === undefined) throw new IsthmusError("NotFound", `there is no token ${request.params.name}`);
      const after: Token = { ...before, status: { ...before.status, revoked: true } };
      draft.write(key, after);
      return { before, after };
    });
    audit.record({ who: actorName(who), action: "revoke", kind: "JoinToken", name: request.params.name, ...result, revision });
    return { object: result.after };
  });

  app.post("/v1/admins", async (request) => {
    const who = requireRole(request, "admin");
    const { name, role, csr } = parseBody(AdminBody, request.body);
    const { publicKey, keyHash } = await readRequest(csr);
    const record: AdminRecord = { role, keyHash, created: new Date(now()).toISOString() };
    const { revision } = await commit(store, mirror, (draft) => {
      const before = draft.read(FOLDER.admins + name) as AdminRecord | undefined;
      if (before !== undefined && before.revoked !== true && before.keyHash !== keyHash) {
        throw new IsthmusError("AlreadyExists", `there is an admin ${name} already`, { remedy: "Choose another name, or revoke that one first." });
      }
      draft.write(FOLDER.admins + name, record);
    });
    audit.record({ who: actorName(who), action: "create", kind: "Admin", name, after: { role }, revision });
    return { certificate: await authority.issue({ role: "admin", name }, publicKey, ADMIN_DAYS), roots: authority.roots };
  });

  app.post<{ Params: { name: string } }>("/v1/admins/:name/revoke", async (request) => {
    const who = requireRole(request, "admin");
    const { name } = request.params;
    const { revision } = await commit(store, mirror, (draft) => {
      const before = draft.read(FOLDER.admins + name) as AdminRecord | undefined;
      if (before === undefined) throw new IsthmusError("NotFound", `there is no admin ${name}`);
      draft.write(FOLDER.admins + name, { ...before, revoked: true } satisfies AdminRecord);
      draft.write(FOLDER.revoked + before.keyHash, { name, at: new Date(now()).toISOString() } satisfies Revocation);
    });
    audit.record({ who: actorName(who), action: "revoke", kind: "Admin", name, revision });
    return { name, revoked: true };
  });
}

/** `dc1`, `dc1-2`, `dc1-3` … */
function freeName(site: string, taken: (name: string) => boolean): string {
  for (let i = 1; ; i++) {
    const name = i === 1 ? site : `${site}-${i}`;
    if (!taken(name)) return name;
  }
}
