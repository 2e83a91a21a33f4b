/** The agent's own socket: HTTP and JSON, for root on this machine, also with the controller dead. */
import { chmodSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { asIsthmusError, IsthmusError } from "../mesh/errors.ts";

export interface SocketHandlers {
  status(): unknown;
  explain(destination: string): Promise<unknown>;
  leave(): Promise<unknown>;
  reconcile(): Promise<unknown>;
}

/** Listens until the signal aborts. The lock was taken before, so a socket that lies there is nobody's. */
export async function serveSocket(path: string, handlers: SocketHandlers, signal: AbortSignal): Promise<void> {
  const server = createServer((request, response) => {
    handle(request.method ?? "", request.url ?? "/", handlers).then(
      (body) => answer(response, 200, body),
      (thrown: unknown) => {
        const error = asIsthmusError(thrown);
        answer(response, error.http, error.toJSON());
      },
    );
  });
  rmSync(path, { force: true });
  // Nobody else may connect, not even between bind and chmod.
  const before = process.umask(0o177);
  try {
    await listening(server, path);
  } finally {
    process.umask(before);
  }
  chmodSync(path, 0o600);
  const close = (): void => {
    // An answer that is on its way (a farewell) still goes out.
    server.close();
    setTimeout(() => server.closeAllConnections(), 1_000).unref();
  };
  if (signal.aborted) close();
  else signal.addEventListener("abort", close, { once: true });
}

async function handle(method: string, target: string, handlers: SocketHandlers): Promise<unknown> {
  const url = URL.parse(target, "http://agent");
  if (url?.host !== "agent") throw new IsthmusError("BadRequest", `${JSON.stringify(target)} is no path`);
  return route(`${method} ${url.pathname}`, url.searchParams, handlers);
}

async function route(what: string, query: URLSearchParams, handlers: SocketHandlers): Promise<unknown> {
  switch (what) {
    case "GET /status":
      return handlers.status();
    case "GET /explain":
      return handlers.explain(query.get("destination") ?? "");
    case "POST /leave":
      return handlers.leave();
    case "POST /reconcile":
      return handlers.reconcile();
    default:
      throw new IsthmusError("NotFound", `the agent does not know ${what}`, {
        remedy: "GET /status, GET /explain?destination=, POST /leave, POST /reconcile",
      });
  }
}

function answer(
  response: { writeHead(status: number, headers: Record<string, string>): unknown; end(text: string): unknown },
  status: number,
  body: unknown,
): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(`${JSON.stringify(body)}\n`);
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((done, failed) => {
    server.once("error", failed);
    server.listen(path, done);
  });
}
