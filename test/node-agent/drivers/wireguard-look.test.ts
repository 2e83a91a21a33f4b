/** A `wg` and processes that are made up: who answers late, or not at all, keeps what was seen of it. */
import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { isDeepStrictEqual } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { IsthmusError } from "../../../mesh/errors.ts";
import type { Ran } from "../../../node-agent/drivers/exec.ts";
import { socketOf } from "../../../node-agent/drivers/wireguard-go.ts";
import { createWireguardLook, type WireguardLook } from "../../../node-agent/drivers/wireguard-look.ts";
import { userspaceInterfaces } from "../../../node-agent/drivers/wireguard-uapi.ts";
import { keyOf } from "../../mesh/kernel/fixtures.ts";
import { isRoot } from "../netns.ts";
import { eventually } from "./namespaces.ts";

const said = (stdout: string, stderr = ""): Ran => ({ ok: stderr === "", stdout, stderr });
const complains = (why: string): Ran => said("", `Unable to access interface: ${why}\n`);
const late = (): Promise<Ran> => Promise.reject(new IsthmusError("Timeout", "wg did not end in time"));
const line = (port: number): string => `SECRET\t${keyOf(1)}\t${port}\toff\n`;
/** Port, and whether it is mute, of each by name. */
const portsOf = async (look: WireguardLook): Promise<unknown[]> =>
  [...(await look())].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, { listenPort, mute }]) => [name, listenPort, mute === true]);
/** Interfaces whose sockets are in nobody's way. */
const [A, B] = [`ismg1${process.pid}`, `ismg2${process.pid}`];

describe("WireGuard in the kernel", () => {
  const names = [A, B];
  const ports: Record<string, number> = { [A]: 1, [B]: 2 };
  let all: () => Promise<Ran>;
  let one: (name: string) => Promise<Ran>;
  const everything = async (): Promise<Ran> => said(names.map((name) => `${name}\t${line(ports[name]!)}`).join(""));
  const each = async (name: string): Promise<Ran> => said(line(ports[name]!));
  let look: WireguardLook;
  beforeEach(() => {
    [all, one] = [everything, each];
    look = createWireguardLook({
      all: () => all(),
      one: (_tool, [, name = ""]) => one(name),
      names: () => ["lo", "eth0", ...names],
      sockets: () => [],
    });
  });
  const seen = [
    [A, 1, false],
    [B, 2, false],
  ];

  it("is asked for each interface when the question for all takes too long, as it does beside somebody else's process that hangs", async () => {
    all = late;
    expect(await portsOf(look)).toEqual(seen);
  });

  it("stays as it was last seen while `wg` answers late, on all interfaces and for as long as that takes", async () => {
    await look();
    [all, one] = [late, late];
    for (let i = 0; i < 3; i++)
      expect(await portsOf(look)).toEqual([
        [A, 1, true],
        [B, 2, true],
      ]);
    one = each;
    await eventually(20_000, "it answers again", async () => isDeepStrictEqual(await portsOf(look), seen));
  });

  it("is waited for once while `wg` answers late: not for each interface in turn, nor by the looks that follow", async () => {
    await look();
    all = late;
    let asked = 0;
    one = () => (asked++, late());
    await look();
    // Waited for, and then asked aside.
    expect(asked).toBe(2);
    let answer: ((said: Ran) => void) | undefined;
    one = () => new Promise((resolve) => (asked++, (answer = resolve)));
    for (let i = 0; i < 3; i++) expect((await portsOf(look))[0]).toEqual([A, 1, true]);
    expect(asked).toBe(3);
    answer?.(said(line(1)));
    one = each;
    await eventually(20_000, "it answers again", async () => isDeepStrictEqual(await portsOf(look), seen));
  });

  it("is not known while `wg` answers late and nothing was seen of it before", async () => {
    [all, one] = [late, late];
    await expect(look()).rejects.toMatchObject({ code: "Timeout" });
  });

  it("is not suspected for a request that got no answer: there is no process to ask", async () => {
    look.suspect(A);
    expect(look.isMute(A)).toBe(false);
    expect(await portsOf(look)).toEqual(seen);
  });

  it.each(["No such device", "Operation not supported", "Protocol not supported"])("is none where `wg` says: %s", async (why) => {
    all = late;
    one = async (name) => (name === A ? complains(why) : each(name));
    expect(await portsOf(look)).toEqual([[B, 2, false]]);
  });

  it("is seen whatever `wg` says of somebody else's interface", async () => {
    all = async () => ({ ...(await everything()), stderr: "Unable to access interface wg0: Connection reset by peer\n" });
    expect(await portsOf(look)).toEqual(seen);
  });

  it.each(["Cannot allocate memory", "Operation not permitted", "Interrupted system call"])("is not gone where `wg` says: %s", async (why) => {
    all = async () => ({ ...said(`${B}\t${line(2)}`), stderr: `Unable to access interface ${A}: ${why}\n` });
    await expect(look()).rejects.toThrow(why);
    all = late;
    one = async (name) => (name === A ? complains(why) : each(name));
    await expect(look()).rejects.toThrow(why);
  });
});

describe.runIf(isRoot)("a process", () => {
  const servers: Server[] = [];
  const connections: Socket[] = [];
  let look: WireguardLook;
  let wg: (name: string) => Promise<Ran>;
  beforeEach(() => {
    mkdirSync("/var/run/wireguard", { recursive: true, mode: 0o755 });
    wg = async () => complains("Protocol not supported");
    look = createWireguardLook({ all: late, one: (_tool, [, name = ""]) => wg(name), names: () => [A, B], sockets: userspaceInterfaces });
  });
  afterEach(() => {
    for (const name of [A, B]) look.forget(name);
    for (const socket of connections.splice(0)) socket.destroy();
    for (const server of servers.splice(0)) server.close();
    for (const name of [A, B]) rmSync(socketOf(name), { force: true });
  });
  const serve = async (name: string, answer: (socket: Socket) => unknown): Promise<void> => {
    const server = createServer((socket) => {
      connections.push(socket);
      socket.on("error", () => undefined).on("data", () => answer(socket));
    });
    servers.push(server);
    await new Promise<void>((done) => server.listen(socketOf(name), done));
  };
  const answers = (port: number) => (socket: Socket) => socket.write(`listen_port=${port}\nerrno=0\n\n`);

  it("that answers again while others are still asked is there all the same", async () => {
    let standsStill = true;
    await serve(A, (socket) => {
      if (!standsStill) answers(1)(socket);
      standsStill = false;
    });
    let asked: (() => void) | undefined;
    wg = (name) => (name === B ? new Promise((resolve) => (asked = () => resolve(said(line(2))))) : late());
    const looked = portsOf(look);
    await eventually(20_000, "it was suspected, and answered", () => connections.length === 2 && !look.isMute(A));
    asked?.();
    expect(await looked).toEqual([
      [A, 0, true],
      [B, 2, false],
    ]);
    wg = async () => said(line(2));
    expect(await portsOf(look)).toEqual([
      [A, 1, false],
      [B, 2, false],
    ]);
  });

  it("that refuses to tell its configuration stays as it was last seen, and the others are seen", async () => {
    let errno = 0;
    await serve(A, (socket) => socket.write(errno === 0 ? "listen_port=1\nerrno=0\n\n" : `errno=${errno}\n\n`));
    await serve(B, answers(2));
    await look();
    errno = 12;
    expect(await portsOf(look)).toEqual([
      [A, 1, true],
      [B, 2, false],
    ]);
  });

  it("that is gone and left its socket is none, unless the kernel has the interface", async () => {
    await serve(B, answers(2));
    const dies = `require("net").createServer().listen(${JSON.stringify(socketOf(A))}, () => process.kill(process.pid, "SIGKILL"))`;
    spawnSync(process.execPath, ["-e", dies]);
    expect(userspaceInterfaces()).toContain(A);
    expect(await portsOf(look)).toEqual([[B, 2, false]]);
    wg = async (name) => (name === A ? said(line(7)) : complains("No such device"));
    expect(await portsOf(look)).toEqual([
      [A, 7, false],
      [B, 2, false],
    ]);
  });
});
