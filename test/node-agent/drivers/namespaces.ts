/** Machines for tests: a network namespace and a mount namespace each, joined by a bridge. Needs root. */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Operation } from "../../../mesh/kernel/operations.ts";
import type { SilentState } from "../../../mesh/kernel/silent-drift.ts";
import type { HostFacts, KernelState } from "../../../mesh/kernel/types.ts";
import type { WgPublicKey } from "../../../mesh/model/scalars.ts";
import type { ApplyResult } from "../../../node-agent/drivers/index.ts";
import { patient } from "../../../lab/patience.ts";
import { kill, makeBridge, pidsInside, sh } from "../netns.ts";

export { isRoot, kill } from "../netns.ts";

export interface Machine {
  readonly name: string;
  readonly dir: string;
  readonly publicKey: WgPublicKey;
  readonly observe: () => Promise<KernelState>;
  readonly hostFacts: () => Promise<HostFacts>;
  readonly silent: () => Promise<SilentState>;
  readonly apply: (ops: readonly Operation[]) => Promise<ApplyResult[]>;
  readonly converge: (desired: KernelState) => Promise<ApplyResult[]>;
  readonly difference: (desired: KernelState) => Promise<Operation[]>;
  readonly cleanup: () => Promise<string[]>;
  readonly blockers: () => Promise<string[]>;
  readonly timed: (ops: readonly Operation[]) => Promise<{ ms: number; failed: ApplyResult[] }>;
  readonly echo: (probe: { from: string; to: string; port: number; withinMs: number }) => Promise<boolean>;
  readonly serve: (body: { port: number }) => Promise<boolean>;
  readonly open: (body: { host: string; port: number }) => Promise<number>;
  readonly say: (body: { id: number; withinMs: number }) => Promise<string>;
  readonly watch: (onWake: (what: string) => void) => Promise<void>;
  /** Runs a command inside; throws on failure. */
  readonly sh: (script: string) => string;
  /** Exit status only. */
  readonly ok: (script: string) => boolean;
  /** Kills the driver process group with SIGKILL and starts another one, as an agent's restart would. */
  readonly restart: () => Promise<void>;
  /** Ids of processes inside whose command line holds the words. */
  readonly pids: (words: string) => number[];
}

export interface Lan {
  machine(name: string, address: string, setup?: string): Promise<Machine>;
  /** Removes every namespace, process and file. */
  close(): void;
}

export function openLan(prefix: string): Lan {
  const bridge = `ist-d-${process.pid}-${prefix}`;
  const closers: (() => void)[] = [];
  makeBridge(bridge);
  closers.push(() => sh(`ip netns del ${bridge}`));
  return {
    async machine(name, address, setup = "") {
      const ns = `${bridge}-${name}`;
      sh(`ip netns del ${ns} 2>/dev/null; ip netns add ${ns}`);
      const dir = mkdtempSync(join(tmpdir(), `${ns}-`));
      closers.push(() => {
        for (const pid of pidsInside(ns)) kill(pid);
        sh(`ip netns del ${ns}`);
        rmSync(dir, { recursive: true, force: true });
      });
      sh(`ip link add eth0 netns ${ns} type veth peer name v-${name} netns ${bridge}; ip -n ${bridge} link set v-${name} master br0 up
          ip -n ${ns} link set lo up; ip -n ${ns} link set eth0 up; ip -n ${ns} addr add ${address} dev eth0; ${setup.replaceAll("NS", ns)}`);
      sh(`umask 077; wg genkey > ${dir}/key; echo '127.0.0.1 localhost' > ${dir}/hosts`);
      const publicKey = sh(`wg pubkey < ${dir}/key`).trim() as WgPublicKey;
      // The first process keeps the mount namespace, so that a restarted one finds the same sockets.
      const holder = spawn(
        "nsenter",
        [
          `--net=/run/netns/${ns}`,
          "unshare",
          "-m",
          "sh",
          "-c",
          "mkdir -p /var/run/wireguard && mount -t tmpfs tmpfs /var/run/wireguard && echo ready && exec sleep infinity",
        ],
        { stdio: ["ignore", "pipe", "ignore"] },
      );
      await new Promise((resolve) => holder.stdout.once("data", resolve));
      return machineOf(ns, name, dir, publicKey, holder.pid!);
    },
    close() {
      for (const closer of closers.toReversed()) closer();
    },
  };
}

async function machineOf(ns: string, name: string, dir: string, publicKey: WgPublicKey, holder: number): Promise<Machine> {
  const enter = ["-t", String(holder), "-n", "-m"];
  let onWake: (what: string) => void = () => undefined;
  const waiting = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();
  let next = 0;
  let child: ChildProcess;
  const start = (): Promise<void> =>
    new Promise((ready) => {
      child = spawn("nsenter", [...enter, process.execPath, join(import.meta.dirname, "node-process.ts"), dir], {
        stdio: ["ignore", "ignore", "inherit", "ipc"],
        serialization: "advanced",
        detached: true,
      });
      child.on("message", (message: { ready?: true; wake?: string; id?: number; value?: unknown; error?: string }) => {
        if (message.ready) return ready();
        if (message.wake !== undefined) return onWake(message.wake);
        const call = waiting.get(message.id!);
        waiting.delete(message.id!);
        if (message.error === undefined) call?.resolve(message.value as never);
        else call?.reject(new Error(message.error));
      });
    });
  await start();
  const call = <T>(what: string, body?: unknown): Promise<T> =>
    new Promise((resolve, reject) => {
      const id = next++;
      waiting.set(id, { resolve, reject });
      child.send({ id, call: what, body });
    });
  const run = (script: string): { status: number | null; stdout: string; stderr: string } =>
    spawnSync("nsenter", [...enter, "sh", "-c", script], { encoding: "utf8" });
  return {
    name,
    dir,
    publicKey,
    observe: () => call("observe"),
    hostFacts: () => call("hostFacts"),
    silent: () => call("silent"),
    apply: (ops) => call("apply", ops),
    converge: (desired) => call("converge", desired),
    difference: (desired) => call("difference", desired),
    cleanup: () => call("cleanup"),
    blockers: () => call("blockers"),
    timed: (ops) => call("timed", ops),
    echo: (probe) => call("echo", probe),
    serve: (body) => call("serve", body),
    open: (body) => call("open", body),
    say: (body) => call("say", body),
    watch: (listener) => {
      onWake = listener;
      return call("watch");
    },
    sh(script) {
      const { status, stdout, stderr } = run(script);
      if (status !== 0) throw new Error(`${name}: ${script}: ${stderr}`);
      return stdout;
    },
    ok: (script) => run(script).status === 0,
    async restart() {
      process.kill(-child.pid!, "SIGKILL");
      await start();
    },
    pids(words) {
      return pidsInside(ns).filter((pid) => commandLine(pid).includes(words));
    },
  };
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    return "";
  }
}

/** Tries until it holds. */
export async function eventually<T>(
  withinMs: number,
  what: string,
  attempt: () => Promise<T | undefined | false> | T | undefined | false,
): Promise<T> {
  const deadline = performance.now() + patient(withinMs);
  for (;;) {
    const found = await attempt();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > deadline) throw new Error(`not within ${patient(withinMs)} ms: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
