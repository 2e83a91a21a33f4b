/** Entry point of the processes that tests start inside a machine: `controller`, `whoami`, `join`, `run`, `leave` or `cleanup`, options as JSON. */
const [what, json = "{}"] = process.argv.slice(2);
const options = JSON.parse(json) as { data: string; run: string; token: string; name: string; listen: string; advertise: string[]; socket: string };
const abort = new AbortController();
for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => abort.abort());
const signal = abort.signal;
const log = (line: string): void => void process.stderr.write(`${new Date().toISOString().slice(11, 23)} ${line}\n`);

try {
  if (what === "controller") {
    const { runController } = await import("../../controller/main.ts");
    const running = await runController({ ...options, signal });
    log(`listening on ${running.address}`);
    await running.closed;
  } else if (what === "whoami") {
    // The internet: answers with the address that a request came from.
    const { createServer } = await import("node:http");
    createServer((request, response) => response.end(request.socket.remoteAddress)).listen(80, "0.0.0.0");
    await new Promise((done) => signal.addEventListener("abort", done));
  } else {
    const { cleanupCommand, joinCommand, leaveCommand, runAgent } = await import("../../node-agent/main.ts");
    if (what === "join") await joinCommand({ ...options, foreground: true, signal, log });
    if (what === "run") await runAgent({ ...options, signal, log });
    if (what === "leave") await leaveCommand({ ...options, signal, log });
    if (what === "cleanup") for (const line of await cleanupCommand({ ...options, signal, log })) log(line);
  }
} catch (error) {
  log(
    `failed: ${error instanceof Error ? `${error.message}${"code" in error ? ` [${String(error.code)}]` : ""} ${error.stack ?? ""}` : String(error)}`,
  );
  process.exitCode = 1;
}
