/** The HTTP API as an OpenAPI 3.1 document, made from the schemas that it is checked by. */
import { z } from "zod";
import { ERRORS } from "../errors.ts";
import { AdminAnswer, AdminRole, ApplyResult, EventRecord, Explanation, LabelPatch, NodeDiff, WireguardRestart } from "./answers.ts";
import { KINDS, type Kind } from "./resources.ts";
import { Duration, ObjectName } from "./scalars.ts";
import { structuralObject, structuralSpec, type StructuralSchema } from "./structural.ts";
import { KIND_SUMMARIES } from "./summaries.ts";
import { JoinRequest, JoinResponse } from "./wire.ts";

type Json = Readonly<Record<string, unknown>>;
/** Least role of an admin's certificate; `none` for what needs no certificate. */
type Role = "none" | "viewer" | "operator" | "admin";

interface Operation {
  readonly method: "get" | "post" | "patch" | "delete";
  readonly path: string;
  readonly id: string;
  readonly summary: string;
  readonly role: Role;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: Json;
  readonly answer: Json;
  /** Media type of the answer; JSON when absent. */
  readonly type?: string;
}

const TEXT: Json = { type: "string" };
const INTEGER: Json = { type: "integer" };
const ANY_OBJECT: Json = { type: "object" };
const DOCUMENTS: Json = { type: "array", items: ANY_OBJECT, maxItems: 10_000 };
const KIND_AND_NAME: Json = { type: "object", properties: { kind: TEXT, name: TEXT }, required: ["kind", "name"] };
const object = (properties: Json, required: readonly string[] = []): Json => ({
  type: "object",
  properties,
  ...(required.length === 0 ? {} : { required }),
});
const listOf = (items: Json): Json => ({ type: "array", items });
const ref = (name: string): Json => ({ $ref: `#/components/schemas/${name}` });

/** The document that GET /v1/openapi.json answers. The same for every call: compare it as text. */
export function openApiDocument(version: string): Json {
  return {
    openapi: "3.1.0",
    info: {
      title: "Isthmus",
      version,
      description:
        "Admins authenticate by a client certificate (TLS 1.3); on the controller's machine root uses the unix socket. Errors are `Error` with the HTTP status of their code.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    components: {
      schemas: schemas(),
      securitySchemes: { certificate: { type: "mutualTLS", description: "Certificate with SAN URI isthmus://admin/NAME." } },
    },
    security: [{ certificate: [] }],
    paths: paths([...fixedOperations(), ...(Object.keys(KINDS) as Kind[]).flatMap(kindOperations)]),
  };
}

function schemas(): Json {
  const kinds = Object.fromEntries(
    (Object.keys(KINDS) as Kind[]).map((kind) => [kind, { ...structuralObject(kind), description: KIND_SUMMARIES[kind] } satisfies StructuralSchema]),
  );
  const zods = { ApplyResult, EventRecord, NodeDiff, Explanation, WireguardRestart, LabelPatch, AdminAnswer, JoinRequest, JoinResponse };
  const answers = Object.fromEntries(Object.entries(zods).map(([name, schema]) => [name, jsonSchema(schema)]));
  const fault = object({ path: TEXT, message: TEXT, value: {}, suggestion: TEXT, document: INTEGER, file: TEXT }, ["path", "message"]);
  const error = object({ code: { type: "string", enum: Object.keys(ERRORS) }, message: TEXT, remedy: TEXT, faults: listOf(fault) }, [
    "code",
    "message",
  ]);
  return { ...kinds, ...answers, Error: error };
}

function kindOperations(kind: Kind): Operation[] {
  const { plural } = KINDS[kind];
  const one = `/v1/resources/${plural}/{name}`;
  return [
    {
      method: "get",
      path: `/v1/resources/${plural}`,
      id: `list${kind}`,
      summary: `List or watch objects of kind ${kind}`,
      role: "viewer",
      query: {
        labelSelector: "k=v, k!=v, k, !k, 'k in (a,b)', joined by commas",
        watch: "1: answer with one {type, object, revision} a line, as they change",
        since: "with watch: the revision of the list that is known",
      },
      answer: object({ items: listOf(ref(kind)), revision: INTEGER }, ["items", "revision"]),
    },
    { method: "get", path: one, id: `get${kind}`, summary: `One ${kind}`, role: "viewer", answer: ref(kind) },
    {
      method: "delete",
      path: one,
      id: `delete${kind}`,
      summary: `Delete a ${kind}`,
      role: "operator",
      query: { dryRun: "1: change nothing" },
      answer: ANY_OBJECT,
    },
    {
      method: "patch",
      path: `${one}/labels`,
      id: `label${kind}`,
      summary: `Set and take away labels of a ${kind}`,
      role: "operator",
      body: ref("LabelPatch"),
      answer: ref(kind),
    },
  ];
}

function fixedOperations(): Operation[] {
  const node = "/v1/nodes/{name}";
  return [
    { method: "get", path: "/healthz", id: "healthz", summary: "The process lives", role: "none", answer: ANY_OBJECT },
    { method: "get", path: "/readyz", id: "readyz", summary: "The controller serves agents; 503 until then", role: "none", answer: ANY_OBJECT },
    { method: "get", path: "/metrics", id: "metrics", summary: "Metrics for Prometheus", role: "viewer", answer: TEXT, type: "text/plain" },
    { method: "get", path: "/v1/openapi.json", id: "openapi", summary: "This document", role: "none", answer: ANY_OBJECT },
    {
      method: "get",
      path: "/v1/status",
      id: "status",
      summary: "The controller, its store's position, its nodes",
      role: "viewer",
      answer: ANY_OBJECT,
    },
    {
      method: "post",
      path: "/v1/apply",
      id: "apply",
      summary: "Make or change objects: all documents, or none",
      role: "operator",
      body: object({ documents: DOCUMENTS, dryRun: { type: "boolean" } }, ["documents"]),
      answer: object({ revision: INTEGER, results: listOf(ref("ApplyResult")) }, ["revision", "results"]),
    },
    {
      method: "post",
      path: "/v1/diff",
      id: "diff",
      summary: "What an apply or delete would change on every node",
      role: "viewer",
      body: object({ documents: DOCUMENTS, delete: listOf(KIND_AND_NAME) }),
      answer: object({ nodes: listOf(ref("NodeDiff")) }, ["nodes"]),
    },
    {
      method: "post",
      path: "/v1/tokens",
      id: "createToken",
      summary: "Make a join token; its text is answered once",
      role: "operator",
      body: object({ name: jsonSchema(ObjectName), spec: asJson(structuralSpec("JoinToken")) }, ["spec"]),
      answer: object({ object: ref("JoinToken"), token: TEXT }, ["object", "token"]),
    },
    {
      method: "post",
      path: "/v1/tokens/{name}/revoke",
      id: "revokeToken",
      summary: "Nobody joins with the token any more",
      role: "operator",
      answer: ANY_OBJECT,
    },
    {
      method: "post",
      path: "/v1/admins",
      id: "createAdmin",
      summary: "Certify an admin's key",
      role: "admin",
      body: object({ name: jsonSchema(ObjectName), role: jsonSchema(AdminRole), csr: { type: "string", description: "PKCS#10, PEM." } }, [
        "name",
        "role",
        "csr",
      ]),
      answer: ref("AdminAnswer"),
    },
    {
      method: "post",
      path: "/v1/admins/{name}/revoke",
      id: "revokeAdmin",
      summary: "Refuse an admin's certificate",
      role: "admin",
      answer: ANY_OBJECT,
    },
    {
      method: "post",
      path: `${node}/drain`,
      id: "drain",
      summary: "Move gateways and routes away from a node",
      role: "operator",
      body: object({ timeout: jsonSchema(Duration) }),
      answer: ref("MeshNode"),
    },
    {
      method: "post",
      path: `${node}/uncordon`,
      id: "uncordon",
      summary: "Let a drained node carry traffic again",
      role: "operator",
      answer: ref("MeshNode"),
    },
    {
      method: "post",
      path: `${node}/restart-wireguard`,
      id: "restartWireguard",
      summary: "Start a drained node's wireguard-go anew",
      role: "operator",
      answer: ref("WireguardRestart"),
    },
    { method: "post", path: `${node}/revoke`, id: "revokeNode", summary: "Refuse a node's certificate", role: "admin", answer: ref("MeshNode") },
    {
      method: "get",
      path: `${node}/explain`,
      id: "explain",
      summary: "The way of a node's traffic to a destination, and why",
      role: "viewer",
      query: { destination: "an address" },
      answer: ref("Explanation"),
    },
    {
      method: "get",
      path: "/v1/events",
      id: "events",
      summary: "What happened, newest last",
      role: "viewer",
      query: { about: "only about this, e.g. node/do1", since: "milliseconds since 1970", watch: "1: one event a line, as they happen" },
      answer: object({ items: listOf(ref("EventRecord")) }, ["items"]),
    },
    {
      method: "get",
      path: "/v1/backup",
      id: "backup",
      summary: "The store and the keys in one file",
      role: "admin",
      answer: { type: "string", contentMediaType: "application/octet-stream" },
      type: "application/octet-stream",
    },
    { method: "post", path: "/v1/recovery/confirm", id: "confirmRecovery", summary: "End Recovery", role: "admin", answer: ANY_OBJECT },
    {
      method: "post",
      path: "/v1/join",
      id: "join",
      summary: "Join with a token's secret",
      role: "none",
      body: ref("JoinRequest"),
      answer: ref("JoinResponse"),
    },
    {
      method: "post",
      path: "/v1/renew",
      id: "renew",
      summary: "Renew a certificate with the key on record",
      role: "none",
      body: ref("JoinRequest"),
      answer: ref("JoinResponse"),
    },
  ];
}

function paths(operations: readonly Operation[]): Json {
  const all: Record<string, Record<string, Json>> = {};
  for (const operation of operations) (all[operation.path] ??= {})[operation.method] = describe(operation);
  return all;
}

function describe(operation: Operation): Json {
  const parameters = [
    ...[...operation.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({ name, in: "path", required: true, schema: TEXT })),
    ...Object.entries(operation.query ?? {}).map(([name, description]) => ({ name, in: "query", description, schema: TEXT })),
  ];
  return {
    operationId: operation.id,
    summary: operation.summary,
    ...(operation.role === "none" ? { security: [] } : { description: `Needs role ${operation.role}.` }),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(operation.body === undefined ? {} : { requestBody: { required: true, content: { "application/json": { schema: operation.body } } } }),
    responses: {
      "200": { description: "Done.", content: { [operation.type ?? "application/json"]: { schema: operation.answer } } },
      default: { description: "Refused; the body says why and what to do.", content: { "application/json": { schema: ref("Error") } } },
    },
  };
}

function jsonSchema(schema: z.ZodType): Json {
  const { $schema: _, ...json } = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
  return json;
}

function asJson(schema: StructuralSchema): Json {
  return { ...schema };
}
