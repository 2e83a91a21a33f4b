/** Runs inside a node's namespaces: the drivers, driven over IPC by the test. */
import { createSocket } from "node:dgram";
import { connect, createServer, type Socket } from "node:net";
import { patient } from "../../../lab/patience.ts";
import { diffKernel } from "../../../mesh/kernel/diff.ts";
import type { Operation } from "../../../mesh/kernel/operations.ts";
import type { KernelState } from "../../../mesh/kernel/types.ts";
import { createKernel } from "../../../node-agent/drivers/index.ts";

const [dir = ""] = process.argv.slice(2);
const kernel = createKernel({ dataDir: `${dir}/data`, runDir: `${dir}/run`, privateKeyFile: `${dir}/key`, hostsFile: `${dir}/hosts` });

const calls: Record<string, (body: never) => Promise<unknown>> = {
  observe: () => kernel.observe(),
  hostFacts: () => kernel.hostFacts(),
  silent: () => kernel.observeSilent(),
  cleanup: () => kernel.cleanup(),
  apply: (ops: readonly Operation[]) => kernel.apply(ops),
  blockers: () => kernel.forwardingBlockers(),
  converge: async (desired: KernelState) => kernel.apply(diffKernel(desired, await kernel.observe())),
  difference: async (desired: KernelState) => diffKernel(desired, await kernel.observe()),
  echo: probe,
  serve,
  open,
  say,
  timed: async (ops: readonly Operation[]) => {
    const from = performance.now();
    const results = await kernel.apply(ops);
    return { ms: performance.now() - from, failed: results.filter(({ ok }) => !ok) };
  },
};

/** Sends one datagram from a link address to the echo port and says whether it came back in time. */
function probe({ from, to, port, withinMs }: { from: string; to: string; port: number; withinMs: number }): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = createSocket({ type: from.includes(":") ? "udp6" : "udp4" });
    const done = (answer: boolean): void => {
      clearTimeout(timer);
      socket.close();
      resolve(answer);
    };
    const timer = setTimeout(() => done(false), patient(withinMs));
    socket.on("message", (_, sender) => done(sender.address === to));
    socket.on("error", () => undefined);
    socket.bind(port, from, () => socket.send("probe", port, to, (error) => error && done(false)));
    socket.once("error", reject);
  });
}

const connections: Socket[] = [];

/** A TCP server that answers every chunk with the address of its client. */
function serve({ port }: { port: number }): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer((socket) => {
      socket.on("data", () => socket.write(`${socket.remoteAddress}\n`));
      socket.on("error", () => undefined);
    });
    server.listen(port, "0.0.0.0", () => resolve(true));
  });
}

function open({ host, port }: { host: string; port: number }): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port }, () => resolve(connections.push(socket) - 1));
    socket.setNoDelay(true).setEncoding("utf8").on("error", reject);
  });
}

/** What the server answers on a connection; `reset` when it is broken, `silence` when nothing comes in time. */
function say({ id, withinMs }: { id: number; withinMs: number }): Promise<string> {
  return new Promise((resolve) => {
    const socket = connections[id]!;
    const done = (answer: string): void => {
      clearTimeout(timer);
      socket.removeAllListeners("data").removeAllListeners("close");
      resolve(answer);
    };
    const timer = setTimeout(() => done("silence"), patient(withinMs));
    if (socket.destroyed) return done("reset");
    socket.once("data", (text: string) => done(text.trim()));
    socket.once("close", () => done("reset"));
    socket.write("who am I?\n");
  });
}

let wakes: AbortController | undefined;
process.on("message", (request: { id: number; call: string; body: unknown }) => {
  if (request.call === "watch") {
    wakes = new AbortController();
    kernel.watch((what) => process.send?.({ wake: what }), wakes.signal);
    process.send?.({ id: request.id, value: true });
    return;
  }
  calls[request.call]!(request.body as never).then(
    (value) => process.send?.({ id: request.id, value }),
    (error: unknown) => process.send?.({ id: request.id, error: error instanceof Error ? error.message : String(error) }),
  );
});
process.on("disconnect", () => {
  wakes?.abort();
  process.exit(0);
});
process.send?.({ ready: true });
