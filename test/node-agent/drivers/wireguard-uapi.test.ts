/** What wireguard-go says at its socket, and a process that is made up: what becomes of the connection that stays open. */
import { generateKeyPairSync } from "node:crypto";
import { mkdirSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { socketOf } from "../../../node-agent/drivers/wireguard-go.ts";
import { createConfigReader, createUserspaceLook, type UserspaceLook, userspaceInterfaces } from "../../../node-agent/drivers/wireguard-uapi.ts";
import { keyOf } from "../../mesh/kernel/fixtures.ts";
import { isRoot } from "../netns.ts";

const NAME = `ismt${process.pid}`;
const OWN = generateKeyPairSync("x25519");
const raw = (form: "d" | "x"): Buffer => Buffer.from(OWN.privateKey.export({ format: "jwk" })[form] ?? "", "base64url");

const peerLines = (n: number, { tx = 10, preshared = "0".repeat(64) } = {}): string =>
  [
    `public_key=${Buffer.from(keyOf(n), "base64").toString("hex")}`,
    `preshared_key=${preshared}`,
    "protocol_version=1",
    "endpoint=[2001:db8::1]:51820",
    "last_handshake_time_sec=1790000000",
    "last_handshake_time_nsec=5",
    `tx_bytes=${tx}`,
    "rx_bytes=20",
    "persistent_keepalive_interval=25",
    "allowed_ip=10.101.0.9/32",
    "allowed_ip=10.101.0.2/32",
    "",
  ].join("\n");
const answerOf = (...peers: readonly string[]): string =>
  `private_key=${raw("d").toString("hex")}\nlisten_port=51820\nfwmark=65\n${peers.join("")}errno=0\n\n`;

describe("what a process says of its interface", () => {
  it("is what `wg` would print of it", () => {
    expect(createConfigReader(NAME)(answerOf(peerLines(1)))).toEqual({
      publicKey: raw("x").toString("base64"),
      listenPort: 51820,
      fwmark: 65,
      peers: new Map([
        [
          keyOf(1),
          {
            publicKey: keyOf(1),
            allowedIps: ["10.101.0.2/32", "10.101.0.9/32"],
            keepalive: 25,
            latestHandshake: 1790000000,
            rxBytes: 20,
            txBytes: 10,
            endpoint: "[2001:db8::1]:51820",
          },
        ],
      ]),
    });
  });

  it("may be nothing at all: an interface without key, port, mark and peers", () => {
    expect(createConfigReader(NAME)("errno=0\n\n")).toEqual({ publicKey: "", listenPort: 0, fwmark: 0, peers: new Map() });
    expect(createConfigReader(NAME)(`${peerLines(1)}errno=0\n\n`).peers.size).toBe(1);
  });

  it("leaves a peer that is as it was the same object, wherever it stands", () => {
    const read = createConfigReader(NAME);
    const before = read(answerOf(peerLines(1), peerLines(2), peerLines(3)));
    const after = read(answerOf(peerLines(3), peerLines(1), peerLines(2, { tx: 11 })));
    expect(after.peers.get(keyOf(1))).toBe(before.peers.get(keyOf(1)));
    expect(after.peers.get(keyOf(3))).toBe(before.peers.get(keyOf(3)));
    expect(after.peers.get(keyOf(2))?.txBytes).toBe(11);
    expect([...read(answerOf(peerLines(2))).peers.keys()]).toEqual([keyOf(2)]);
  });

  it("says that a peer has a preshared key, and nothing of it is kept", () => {
    const read = createConfigReader(NAME);
    const text = answerOf(peerLines(1, { preshared: "ab".repeat(32) }));
    const before = read(text).peers.get(keyOf(1));
    expect(before?.presharedKey).toBe(true);
    expect(read(text).peers.get(keyOf(1))).not.toBe(before);
    expect(read(answerOf(peerLines(1))).peers.get(keyOf(1))?.presharedKey).toBeUndefined();
  });

  it("is an error when the process refuses, without what it said before", () => {
    expect(() => createConfigReader(NAME)("private_key=abc\nerrno=-22\n\n")).toThrow(/errno -22/);
    expect(() => createConfigReader(NAME)("private_key=abc\n\n")).not.toThrow(/abc/);
  });
});

describe.runIf(isRoot)("the connection to a process", () => {
  let server: Server | undefined;
  let look: UserspaceLook;
  let connections: Socket[];
  beforeEach(() => {
    mkdirSync("/var/run/wireguard", { recursive: true, mode: 0o755 });
    connections = [];
    look = createUserspaceLook(NAME, 60_000);
  });
  afterEach(() => {
    look.close();
    for (const one of connections) one.destroy();
    server?.close();
    rmSync(socketOf(NAME), { force: true });
  });
  const serve = async (answer: (socket: Socket) => void): Promise<void> => {
    const made = createServer((socket) => {
      connections.push(socket);
      socket.setEncoding("latin1").on("data", (text: string) => {
        if (text === "get=1\n\n") answer(socket);
      });
    });
    server = made;
    await new Promise<void>((done) => made.listen(socketOf(NAME), done));
  };

  it("stays open from one look to the next", async () => {
    let tx = 0;
    await serve((socket) => socket.write(answerOf(peerLines(1, { tx: ++tx }))));
    for (const seen of [1, 2, 3]) expect((await look.ask())?.peers.get(keyOf(1))?.txBytes).toBe(seen);
    expect(connections).toHaveLength(1);
    expect(userspaceInterfaces()).toContain(NAME);
  });

  it("takes an answer in pieces, parted anywhere, for what it is", async () => {
    const text = answerOf(peerLines(1), peerLines(2));
    let cut = text.length;
    await serve((socket) => {
      cut--;
      socket.write(text.slice(0, cut), () => setImmediate(() => socket.write(text.slice(cut))));
    });
    for (let i = 0; i < 12; i++) expect((await look.ask())?.peers.size).toBe(2);
  });

  it("is made anew when the process ended it, and half an answer is none", async () => {
    let times = 0;
    await serve((socket) => {
      if (++times === 2) socket.end(answerOf(peerLines(1)).slice(0, -1));
      else socket.write(answerOf(peerLines(1)));
    });
    expect((await look.ask())?.peers.size).toBe(1);
    expect((await look.ask())?.peers.size).toBe(1);
    expect(connections).toHaveLength(2);
  });

  it("is none where nobody listens", async () => {
    expect(await look.ask()).toBeUndefined();
    await serve((socket) => socket.write(answerOf()));
    expect((await look.ask())?.listenPort).toBe(51820);
  });

  it("is given up when the process says nothing, and asked on another one next time", async () => {
    look.close();
    look = createUserspaceLook(NAME, 50);
    let silent = true;
    await serve((socket) => silent || socket.write(answerOf()));
    await expect(look.ask()).rejects.toMatchObject({ code: "Timeout", message: expect.stringContaining(NAME) as string });
    silent = false;
    look.close();
    look = createUserspaceLook(NAME, 60_000);
    expect((await look.ask())?.listenPort).toBe(51820);
  });
});
