/**
 * A virtual machine under QEMU, its processor emulated: it needs nothing of this machine's kernel. Commands reach it through
 * QEMU's guest agent; it has no network.
 *
 * Its time is counted in instructions, a billion to a second. However slow or busy this machine is, the guest sees an even,
 * ordinary one, and only it takes longer: a busy second of the guest some five of ours. ISTHMUS_VM_ACCEL=kvm has it run by the real
 * clock, where there is such support.
 */
import type { ChildProcess } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { randomInt } from "node:crypto";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { ask } from "./channel.ts";
import type { Image } from "./image.ts";
import { start } from "./scratch.ts";

export interface MachineOptions {
  readonly image: Image;
  /** Disk with the working tree. */
  readonly tree: string;
  /** For sockets and logs. */
  readonly folder: string;
  readonly memoryMb: number;
  /** What the guest writes to `OUTPUT`, as it comes. */
  readonly onOutput?: (text: string) => void;
}

export interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface ShOptions {
  readonly timeoutMs?: number;
  readonly mayFail?: boolean;
}

export interface Machine extends AsyncDisposable {
  /** Runs a shell script as root. @throws Error when it fails, unless it may */
  sh(script: string, options?: ShOptions): Promise<Result>;
  /** Cuts the power and gives it back; comes back once the guest answers again. Its disk stays. */
  powerCycle(): Promise<void>;
  /** Reboots as a user would; the same otherwise. */
  reboot(): Promise<void>;
  /** Ends it; idempotent. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Device in the guest whose text comes to `onOutput`. */
export const OUTPUT = "/dev/virtio-ports/isthmus.output";
/** It boots in 50 s where it has a core of its own. */
const BOOT_MS = 1_200_000;
/** Longest that a command may take when nothing else is said: of our time, which is not the guest's. */
const COMMAND_MS = 1_200_000;
/** Longest that the guest may think about one question. Where others take this machine's time it thinks for long, and an answer that nobody waits for is lost. */
const ANSWER_MS = 300_000;
/** The same while it may be about to end, and never answer. */
const LAST_ANSWER_MS = 30_000;

export async function startMachine(options: MachineOptions): Promise<Machine> {
  const { folder } = options;
  const [agent, monitor] = [join(folder, "agent.sock"), join(folder, "monitor.sock")];
  const qemu = spawnQemu(options, agent, monitor);
  const inGuest = async (execute: string, args: Readonly<Record<string, unknown>>, timeoutMs: number): Promise<unknown> => {
    const id = randomInt(1, 2 ** 31);
    return ask(agent, { execute: "guest-sync", arguments: { id } }, (value) => value === id, { execute, arguments: args }, timeoutMs);
  };
  const inMonitor = async (execute: string): Promise<unknown> => ask(monitor, { execute: "qmp_capabilities" }, () => true, { execute }, 30_000);
  const until = async (what: string, holds: () => Promise<boolean>): Promise<void> => {
    const deadline = performance.now() + BOOT_MS;
    while (!(await holds().catch(() => false))) {
      if (qemu.exitCode !== null) throw new Error(`QEMU ended: ${tail(join(folder, "qemu.log"))}`);
      if (performance.now() > deadline) throw new Error(`${what}: not within ${BOOT_MS / 1000} s\n${tail(join(folder, "console.log"))}`);
      await delay(500);
    }
  };
  const sh = async (script: string, options: ShOptions & { readonly answerMs?: number } = {}): Promise<Result> => {
    const { timeoutMs = COMMAND_MS, mayFail = false, answerMs = ANSWER_MS } = options;
    const command = { path: "/bin/sh", arg: ["-c", script], "capture-output": true };
    const { pid } = (await inGuest("guest-exec", command, answerMs)) as { pid: number };
    const deadline = performance.now() + timeoutMs;
    for (let wait = 100; ; wait = Math.min(2 * wait, 5_000)) {
      const status = (await inGuest("guest-exec-status", { pid }, answerMs)) as ExecStatus;
      if (status.exited) {
        const result = { code: status.exitcode ?? 128 + (status.signal ?? 0), out: text(status["out-data"]), err: text(status["err-data"]) };
        if (result.code !== 0 && !mayFail) throw new Error(`in the machine: ${script}\nexit status ${result.code}\n${result.out}${result.err}`);
        return result;
      }
      if (performance.now() > deadline) throw new Error(`in the machine: ${script}\nnot over within ${timeoutMs / 1000} s`);
      await delay(wait);
    }
  };
  const bootId = async (): Promise<string> => (await sh("cat /proc/sys/kernel/random/boot_id", { answerMs: LAST_ANSWER_MS })).out;
  const comeBack = async (before: string): Promise<void> => until("the machine comes back", async () => (await bootId()) !== before);
  await until("the machine boots", async () => (await sh("systemctl is-system-running --wait || :")).code === 0);
  return {
    sh,
    async powerCycle() {
      const before = await bootId();
      await inMonitor("system_reset");
      await comeBack(before);
    },
    async reboot() {
      const before = await bootId();
      await sh("systemctl reboot", { mayFail: true, answerMs: LAST_ANSWER_MS }).catch(() => {});
      await comeBack(before);
    },
    async [Symbol.asyncDispose]() {
      if (qemu.exitCode !== null || qemu.signalCode !== null) return;
      const ended = new Promise((done) => qemu.once("exit", done));
      qemu.kill("SIGKILL");
      await ended;
    },
  };
}

interface ExecStatus {
  readonly exited: boolean;
  readonly exitcode?: number;
  readonly signal?: number;
  readonly "out-data"?: string;
  readonly "err-data"?: string;
}

function spawnQemu(options: MachineOptions, agent: string, monitor: string): ChildProcess {
  const { image, tree, folder, memoryMb, onOutput } = options;
  const given = process.env["ISTHMUS_VM_ACCEL"];
  const processor =
    given === undefined ? ["-accel", "tcg,thread=single", "-icount", "shift=0", "-rtc", "clock=vm", "-smp", "1"] : ["-accel", given, "-smp", "2"];
  const disk = (file: string): string[] => ["-drive", `file=${file},if=virtio,format=raw,snapshot=on,cache=unsafe`];
  const argv = [
    ["qemu-system-x86_64", ...processor, "-cpu", "max", "-m", String(memoryMb)],
    ["-nodefaults", "-no-user-config", "-display", "none", "-device", "virtio-rng-pci"],
    // Programs at the same addresses each time: QEMU translates code anew for each address (tried: 3,600 pieces per run of `ip`, a good third of its time).
    ["-kernel", image.kernel, "-initrd", image.initrd, "-append", "root=/dev/vda rw console=ttyS0 quiet audit=0 panic=-1 norandmaps"],
    [...disk(image.disk), ...disk(tree)],
    ["-serial", `file:${join(folder, "console.log")}`, "-qmp", `unix:${monitor},server=on,wait=off`],
    ["-device", "virtio-serial", "-chardev", `socket,path=${agent},server=on,wait=off,id=agent`],
    ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"],
    ["-chardev", "stdio,id=output,signal=off", "-device", "virtserialport,chardev=output,name=isthmus.output"],
  ].flat();
  const log = openSync(join(folder, "qemu.log"), "w");
  // Standard input stays open: at its end QEMU would take the guest's output no more.
  const qemu = start(argv, { stdio: ["pipe", "pipe", log] });
  closeSync(log);
  qemu.stdout?.setEncoding("utf8").on("data", (text: string) => onOutput?.(text));
  return qemu;
}

function text(base64: string | undefined): string {
  return Buffer.from(base64 ?? "", "base64").toString("utf8");
}

function tail(file: string): string {
  try {
    return readFileSync(file, "utf8").trim().split("\n").slice(-15).join("\n");
  } catch {
    return "";
  }
}
