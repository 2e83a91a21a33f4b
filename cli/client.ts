/** HTTP to the controller, over its unix socket or TLS with an admin's certificate. */
import type { ClientRequest, IncomingMessage } from "node:http";
import { asIsthmusError, errorFromBody, IsthmusError } from "../mesh/errors.ts";
import { RECOVERY_CAUSE_HEADER, RECOVERY_HEADER } from "../mesh/model/answers.ts";
import type { Context } from "./context.ts";

export interface Client {
  /** JSON in, JSON out; by default an answer may take 30 s. @throws {IsthmusError} the controller's own, or Unreachable, Timeout, Unauthenticated. */
  call(method: "GET" | "POST" | "PATCH" | "DELETE", path: string, body?: unknown, waitMs?: number): Promise<unknown>;
  /** The body as bytes (backups). */
  bytes(path: string): Promise<Buffer>;
  /** Each line of an NDJSON answer, until the other side ends it or the signal aborts. */
  lines(path: string, signal: AbortSignal): AsyncGenerator;
  /** For messages: `https://…` or the socket's path. */
  readonly where: string;
}

const ANSWER_MS = 30_000;

/** `/v1/resources/x?labelSelector=…`: path and query, encoded; undefined values are left out. */
export function apiPath(parts: readonly string[], query: Readonly<Record<string, string | number | undefined>> = {}): string {
  const set = Object.entries(query).filter(([, value]) => value !== undefined);
  const search = new URLSearchParams(Object.fromEntries(set.map(([key, value]) => [key, String(value)]))).toString();
  return `/${["v1", ...parts.map(encodeURIComponent)].join("/")}${search === "" ? "" : `?${search}`}`;
}

/** @param warn told once when the controller says that it is in Recovery */
export function clientFor(context: Context, warn: (text: string) => void = () => {}): Client {
  const where = context.socket ?? context.server ?? context.name;
  let warned = false;
  const send = async (method: string, path: string, body: unknown, signal?: AbortSignal, waitMs = ANSWER_MS): Promise<IncomingMessage> => {
    const answer = await exchange(context, method, path, body, { signal, waitMs }, where);
    const missing = answer.headers[RECOVERY_HEADER];
    if (typeof missing === "string" && !warned) {
      warned = true;
      const cause = answer.headers[RECOVERY_CAUSE_HEADER];
      warn(recoveryText(Number(missing), typeof cause === "string" ? ` (${cause})` : ""));
    }
    return answer;
  };
  return {
    where,
    call: async (method, path, body, waitMs) => {
      const answer = await send(method, path, body, undefined, waitMs);
      return json(await collect(answer, where), where);
    },
    bytes: async (path) => collect(await send("GET", path, undefined), where),
    lines: async function* (path, signal) {
      const answer = await send("GET", path, undefined, signal);
      answer.setTimeout(0);
      yield* splitLines(answer, where, signal);
    },
  };
}

function recoveryText(missing: number, cause: string): string {
  const away = missing === 0 ? "every node on record has reported" : `${missing} of the nodes on record have not reported yet`;
  return `the controller is in Recovery${cause}: it deletes no peer and issues no address or token; ${away}. It ends by itself, or with \`isthmus recovery confirm\` when everyone who will come back is back`;
}

/** Sends a request and gives the answer once its status is good; otherwise throws what the body says. */
async function exchange(
  context: Context,
  method: string,
  path: string,
  body: unknown,
  { signal, waitMs }: { readonly signal: AbortSignal | undefined; readonly waitMs: number },
  where: string,
): Promise<IncomingMessage> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const headers = {
    accept: "application/json",
    ...(text === undefined ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(text) }),
  };
  const answer = await new Promise<IncomingMessage>((done, failed) => {
    const options = { method, path, headers, agent: false, ...(signal === undefined ? {} : { signal }) } as const;
    openRequest(context, options, done).then((call) => {
      call.on("error", failed);
      call.setTimeout(waitMs, () => call.destroy(Object.assign(new Error("no answer"), { code: "ETIMEDOUT" })));
      call.end(text);
    }, failed);
  }).catch((error: unknown) => {
    throw connectionError(error, where, context);
  });
  if ((answer.statusCode ?? 500) < 300) return answer;
  const problem = await collect(answer, where);
  try {
    throw errorFromBody(JSON.parse(problem.toString("utf8")));
  } catch (error) {
    if (error instanceof IsthmusError && error.message !== NOT_OURS) throw error;
    throw new IsthmusError("Internal", `${where} answered ${method} ${path} with HTTP ${answer.statusCode}, which is not an Isthmus answer`, {
      remedy: "Check that the address belongs to an Isthmus controller of a fitting version.",
    });
  }
}

const NOT_OURS = errorFromBody(undefined).message;

type RequestOptions = {
  readonly method: string;
  readonly path: string;
  readonly headers: Record<string, string | number>;
  readonly agent: false;
  readonly signal?: AbortSignal;
};

async function openRequest(context: Context, options: RequestOptions, done: (answer: IncomingMessage) => void): Promise<ClientRequest> {
  if (context.socket !== undefined) {
    const { request } = await import("node:http");
    return request({ ...options, socketPath: context.socket, headers: { ...options.headers, host: "isthmus" } }, done);
  }
  if (context.server === undefined)
    throw new IsthmusError("Invalid", `context ${context.name} names neither a server nor a socket`, {
      remedy: "Set one with `isthmus config set-context NAME --server https://HOST:PORT`.",
    });
  const { request } = await import("node:https");
  const { isIP } = await import("node:net");
  const url = new URL(context.server);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  return request(
    {
      ...options,
      host,
      port: url.port === "" ? 443 : Number(url.port),
      servername: isIP(host) === 0 ? host : "",
      minVersion: "TLSv1.3",
      ca: context.ca,
      cert: context.cert,
      key: context.key,
      // Controllers are reached by many names and addresses: what counts is the role in a certificate of our own root.
      checkServerIdentity: (_, certificate) =>
        (certificate.subjectaltname ?? "").split(", ").some((name) => name.startsWith("URI:isthmus://controller/"))
          ? undefined
          : Object.assign(new Error("the certificate is not a controller's"), { code: "NOT_A_CONTROLLER" }),
    },
    done,
  );
}

function connectionError(error: unknown, where: string, context: Context): IsthmusError {
  if (error instanceof IsthmusError) return error;
  const code = (error as NodeJS.ErrnoException).code ?? "";
  const why = error instanceof Error ? error.message : String(error);
  if (context.socket !== undefined && (code === "EACCES" || code === "EPERM"))
    return new IsthmusError("Forbidden", `${where} may be used by root only`, { remedy: "Run as root, or use an admin's context.", cause: error });
  if (code === "ENOENT")
    return new IsthmusError("Unreachable", `no controller listens at ${where}: there is no such socket`, {
      remedy: "Start it with `isthmus controller run`, or choose another context.",
      cause: error,
    });
  if (code === "ETIMEDOUT")
    return new IsthmusError("Timeout", `the controller at ${where} did not answer in time`, {
      remedy: "Check the network and the controller, then try again.",
      cause: error,
    });
  if (code === "NOT_A_CONTROLLER" || code === "INVALID_PURPOSE")
    return new IsthmusError("Unauthenticated", `${where}: the other side's certificate is not a controller's`, {
      remedy: "Check the server's address in the context.",
      cause: error,
    });
  if (/SELF_SIGNED|UNABLE_TO|CERT_|SIGNATURE/.test(code))
    return new IsthmusError("PinMismatch", `${where}: the certificate does not come from the root that this context trusts (${code})`, {
      remedy: "Check the address; after a new installation of the controller make the context again with `isthmus create admin`.",
      cause: error,
    });
  if (code.startsWith("ERR_SSL") || code.startsWith("ERR_TLS") || code === "EPROTO")
    return new IsthmusError("Unauthenticated", `${where} refused the TLS connection: ${why}`, {
      remedy: "Check the context's certificate; it may have expired or been revoked.",
      cause: error,
    });
  return new IsthmusError("Unreachable", `the controller at ${where} cannot be reached: ${why}`, {
    remedy:
      "Check that it runs and that nothing blocks the way. Nodes keep forwarding and failing over meanwhile; `isthmus status` on a node shows its state.",
    cause: error,
  });
}

async function collect(answer: IncomingMessage, where: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  try {
    for await (const part of answer) parts.push(part as Buffer);
  } catch (error) {
    throw new IsthmusError("Unreachable", `the connection to ${where} broke while it answered`, { cause: error, remedy: "Try again." });
  }
  return Buffer.concat(parts);
}

function json(body: Buffer, where: string): unknown {
  if (body.length === 0) return undefined;
  try {
    return JSON.parse(body.toString("utf8"));
  } catch (error) {
    throw new IsthmusError("Internal", `${where} answered with something that is not JSON`, { cause: error });
  }
}

async function* splitLines(answer: IncomingMessage, where: string, signal: AbortSignal): AsyncGenerator {
  let rest = "";
  answer.setEncoding("utf8");
  try {
    for await (const part of answer) {
      const lines = (rest + String(part)).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) if (line.trim() !== "") yield json(Buffer.from(line), where);
    }
  } catch (error) {
    if (signal.aborted) return;
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ECONNRESET" || code === "ERR_STREAM_PREMATURE_CLOSE") return;
    throw asIsthmusError(error, "Unreachable");
  }
}
