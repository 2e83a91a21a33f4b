/**
 * `docker-compose.yml` as far as it can be run without an image: its command as the first process of namespaces of its own, with the
 * mounts and the environment that it names. Needs root.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parse } from "yaml";
import { eventually } from "../../lab/shell.ts";

const root = join(import.meta.dirname, "../..");
const ADVERTISE = "controller.example.com:8443";

interface Service {
  readonly working_dir: string;
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly volumes: readonly string[];
  readonly stop_grace_period: string;
}
const file = parse(readFileSync(join(root, "docker-compose.yml"), "utf8")) as { services: { controller: Service }; volumes: object };
const { controller } = file.services;

let folder: string;
let container: ChildProcess | undefined;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "isthmus-compose-"));
});
afterEach(() => {
  container?.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

/** A root of its own over that of this machine, which is not written to, with each volume where the file says. */
function mounts(top: string): string[] {
  const volumes = controller.volumes.flatMap((volume) => {
    const [from = "", to = "", how] = volume.split(":");
    const source = from === "." ? root : join(folder, from);
    mkdirSync(source, { recursive: true });
    const bind = `mkdir -p ${top}${to} && mount --bind ${source} ${top}${to}`;
    return [bind, ...(how === "ro" ? [`mount -o remount,bind,ro ${top}${to}`] : [])];
  });
  const layers = `lowerdir=/,upperdir=${folder}/layer/upper,workdir=${folder}/layer/work`;
  return [
    `mkdir ${folder}/layer && mount -t tmpfs none ${folder}/layer && mkdir ${folder}/layer/upper ${folder}/layer/work ${top}`,
    `mount -t overlay overlay -o ${layers} ${top}`,
    `mount -t tmpfs none ${top}/run && mount -t proc proc ${top}/proc && mount --rbind /dev ${top}/dev`,
    ...volumes,
  ];
}

test.runIf(process.getuid?.() === 0)("the controller runs as the first process of its container, from a tree that it cannot write", async () => {
  const words = controller.command.map((word) => word.replace(/^\$\{ISTHMUS_ADVERTISE:\?.*\}$/, ADVERTISE));
  expect(words).toContain(ADVERTISE);
  const top = join(folder, "root");
  const environment = Object.entries(controller.environment).map(([name, value]) => `${name}=${value}`);
  const path = `PATH=${controller.working_dir}/node_modules/.bin:/usr/sbin:/usr/bin:/sbin:/bin`;
  const start = `exec chroot ${top} env -i -C ${controller.working_dir} ${path} ${environment.join(" ")} "$@"`;
  const argv = ["--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-c"];
  const script = ["set -e", "ip link set lo up", ...mounts(top), start].join("\n");
  container = spawn("unshare", [...argv, script, "sh", ...words], { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [container.stdout, container.stderr]) stream?.setEncoding("utf8").on("data", (text: string) => (said += text));
  const ended = new Promise<number | null>((done) => container?.once("exit", (code) => done(code)));
  // As `docker compose exec controller node cli/main.ts …`.
  const inside = (command: string): { status: number | null; stdout: string; stderr: string } => {
    const pid = readFileSync(`/proc/${container?.pid}/task/${container?.pid}/children`, "utf8").trim();
    const enter = ["--target", pid, "--root", "--mount", "--pid", "--net", "--", "sh", "-c", `cd ${controller.working_dir} && ${command}`];
    return spawnSync("nsenter", enter, {
      encoding: "utf8",
      env: { PATH: `${controller.working_dir}/node_modules/.bin:/usr/bin:/bin`, HOME: "/root" },
    });
  };
  const listed = await eventually("the controller answers", 30_000, () => {
    const asked = inside("node cli/main.ts get nodes");
    return asked.status === 0 ? asked : undefined;
  }).catch((error: unknown) => {
    throw new Error(said, { cause: error });
  });
  expect(listed.stdout + listed.stderr).toMatch(/no nodes|NAME/i);
  expect(inside("cat /proc/1/cmdline").stdout).toContain("controller");
  expect(inside("touch written").status).not.toBe(0);
  expect(inside("test -e /data/controller/store.db").status).toBe(0);
  // `docker compose stop`: SIGTERM to the first process, which has no default action there.
  const stopping = performance.now();
  inside("kill -TERM 1");
  expect(await ended).toBe(0);
  expect(performance.now() - stopping).toBeLessThan(Number.parseInt(controller.stop_grace_period, 10) * 1_000);
});
