/** Whole machines for tests: network and mount namespaces on one bridge, with real controller and agent processes. Needs root. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AgentStatus } from "../../node-agent/status.ts";
import { patient } from "../../lab/patience.ts";
import { kill, makeBridge, pidsInside, sh } from "./netns.ts";

export { isRoot } from "./netns.ts";

export interface TestMachine {
  readonly name: string;
  readonly data: string;
  readonly run: string;
  readonly log: string;
  sh(script: string): string;
  ok(script: string): boolean;
  /** Starts a process inside; its output goes to the log. */
  start(what: string, options: Record<string, unknown>): ChildProcess;
  status(): Promise<AgentStatus>;
  agent(method: string, path: string): Promise<unknown>;
  /** Power off, no goodbye. */
  die(): void;
  /** Power off and on: every process dies, all kernel state of the machine is gone, the disk stays. */
  reboot(): Promise<void>;
}

export interface TestNet {
  /** @param setup shell lines run with NS replaced by the namespace's name */
  machine(name: string, address: string, setup?: string): Promise<TestMachine>;
  close(): void;
}

export function openNet(prefix: string): TestNet {
  const bridge = `ist-f-${process.pid}-${prefix}`;
  const closers: (() => void)[] = [];
  makeBridge(bridge);
  closers.push(() => sh(`ip netns del ${bridge}`));
  return {
    async machine(name, address, setup = "") {
      const ns = `${bridge}-${name}`;
      const dir = mkdtempSync(join(tmpdir(), `${ns}-`));
      for (const folder of ["data", "run"]) mkdirSync(join(dir, folder), { mode: 0o700 });
      writeFileSync(join(dir, "hosts"), "127.0.0.1 localhost\n");
      // A machine keeps its hardware address over a reboot; a new one would leave the others' ARP entries pointing nowhere.
      const mac = `02:15:f0:00:00:${Number.parseInt(address.split(".")[3] ?? "1", 10)
        .toString(16)
        .padStart(2, "0")}`;
      let holder: ChildProcess | undefined;
      const powerOff = (): void => {
        for (const pid of pidsInside(ns)) kill(pid);
        spawnSync("sh", ["-c", `ip netns del ${ns}; ip -n ${bridge} link del v-${name}`], { stdio: "ignore" });
      };
      const powerOn = async (): Promise<void> => {
        sh(`set -e; ip netns add ${ns}; ip link add eth0 netns ${ns} address ${mac} type veth peer name v-${name} netns ${bridge}; ip -n ${bridge} link set v-${name} master br0 up
            ip -n ${ns} link set lo up; ip -n ${ns} link set eth0 up; ip -n ${ns} addr add ${address} dev eth0; ${setup.replaceAll("NS", ns)}`);
        const script = `mkdir -p /var/run/wireguard && mount -t tmpfs tmpfs /var/run/wireguard && mount --bind ${dir}/hosts /etc/hosts && echo ready && exec sleep infinity`;
        const made = spawn("nsenter", [`--net=/run/netns/${ns}`, "unshare", "-m", "sh", "-c", script], { stdio: ["ignore", "pipe", "ignore"] });
        holder = made;
        await new Promise((done) => made.stdout.once("data", done));
      };
      powerOff();
      await powerOn();
      closers.push(() => {
        powerOff();
        rmSync(dir, { recursive: true, force: true });
      });
      const enter = (): string[] => ["-t", String(holder?.pid), "-n", "-m"];
      const inside = (script: string): { status: number | null; stdout: string; stderr: string } =>
        spawnSync("nsenter", [...enter(), "sh", "-c", script], { encoding: "utf8" });
      const log = join(dir, "log");
      let boots = 1;
      const agent = (method: string, path: string): Promise<unknown> => askUnix(join(dir, "run/agent.sock"), method, path);
      return {
        name,
        data: join(dir, "data"),
        run: join(dir, "run"),
        log,
        sh(script) {
          const { status, stdout, stderr } = inside(script);
          if (status !== 0) throw new Error(`${name}: ${script}: ${stdout}${stderr}`);
          return stdout;
        },
        ok: (script) => inside(script).status === 0,
        start: (what, options) => {
          const env = { ...process.env, ISTHMUS_MACHINE_ID: name, ISTHMUS_BOOT_ID: `${name}-${boots}` };
          const file = join(import.meta.dirname, "run-process.ts");
          const child = spawn(
            "sh",
            [
              "-c",
              `exec nsenter ${enter().join(" ")} "$@" >>${log} 2>&1`,
              "sh",
              process.execPath,
              file,
              what,
              JSON.stringify({ data: join(dir, "data"), run: join(dir, "run"), ...options }),
            ],
            { stdio: "ignore", env },
          );
          return child;
        },
        status: async () => (await agent("GET", "/status")) as AgentStatus,
        agent,
        die: powerOff,
        async reboot() {
          powerOff();
          boots++;
          await powerOn();
        },
      };
    },
    close() {
      for (const closer of closers.toReversed()) closer();
    },
  };
}

/** HTTP and JSON over a unix socket. */
export function askUnix(socketPath: string, method: string, path: string, body?: unknown): Promise<unknown> {
  return new Promise((done, failed) => {
    const call = request({ socketPath, method, path, headers: { "content-type": "application/json" } }, (answer) => {
      const parts: Buffer[] = [];
      answer.on("data", (part: Buffer) => parts.push(part));
      answer.on("end", () => {
        const text = Buffer.concat(parts).toString("utf8");
        if ((answer.statusCode ?? 500) < 300) done(JSON.parse(text));
        else failed(new Error(`${method} ${path}: ${answer.statusCode} ${text}`));
      });
    });
    call.on("error", failed);
    call.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

/** Tries until it holds; the last failure is the reason. */
export async function eventually<T>(withinMs: number, what: string, attempt: () => Promise<T> | T): Promise<T> {
  const deadline = performance.now() + patient(withinMs);
  for (;;) {
    try {
      const found = await attempt();
      if (found !== false && found !== undefined) return found;
      if (performance.now() > deadline) throw new Error(`not within ${patient(withinMs)} ms: ${what}`);
    } catch (error) {
      if (performance.now() > deadline)
        throw new Error(`not within ${patient(withinMs)} ms: ${what}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    }
    await new Promise((done) => setTimeout(done, 30));
  }
}

export function tail(file: string, lines = 40): string {
  return readFileSync(file, "utf8").split("\n").slice(-lines).join("\n");
}
