import { createSocket } from "node:dgram";
import { afterEach, describe, expect, test } from "vitest";
import type { IpAddress, NodeName } from "../../../mesh/model/scalars.ts";
import { monotonic } from "../../../node-agent/probe/clock.ts";
import { createStateClient, createStateServer, type GatewayWord, type StateServer } from "../../../node-agent/probe/link-state.ts";
import { eventually } from "./eventually.ts";

const port = 22_000 + (process.pid % 20_000);
const client = "127.78.0.1" as IpAddress;
const gateway = "127.78.1.1" as IpAddress;
const name = "gw1" as NodeName;
const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

function startServer(state: () => GatewayWord): StateServer {
  const server = createStateServer({ bind: gateway, port, clock: monotonic, state });
  cleanups.push(() => server.close());
  return server;
}

function startClient(): GatewayWord[] {
  const heard: GatewayWord[] = [];
  const asker = createStateClient({ bind: client, port, onWord: (node, word) => void (node === name && heard.push(word)) });
  cleanups.push(() => asker.close());
  asker.setGateways([{ node: name, address: gateway }]);
  return heard;
}

describe("a gateway's word", () => {
  test("is asked for at once and every second, and pushed when it changes", async () => {
    let word: GatewayWord = { state: "Serving", down: [] };
    const server = startServer(() => word);
    const heard = startClient();
    await eventually(() => expect(heard).toEqual([{ state: "Serving", down: [] }]));
    word = { state: "UplinkDown", down: ["egress/a"] };
    const before = monotonic.now();
    server.push();
    await eventually(() => expect(heard.at(-1)).toEqual(word));
    expect(monotonic.now() - before).toBeLessThan(500);
    word = { state: "Draining", down: [] };
    await eventually(() => expect(heard.at(-1)).toEqual(word));
  });

  test("reaches a client that started before the gateway", async () => {
    const heard = startClient();
    startServer(() => ({ state: "Serving", down: [] }));
    await eventually(() => expect(heard).not.toEqual([]));
  });

  test("is asked for when the gateway is back, long before the second is over", async () => {
    const asks: number[] = [];
    const back = createSocket("udp4").on("message", () => asks.push(monotonic.now()));
    cleanups.push(() => back.close());
    await new Promise<void>((resolve) => back.bind(port, gateway, resolve));
    const asker = createStateClient({ bind: client, port, onWord: () => {} });
    cleanups.push(() => asker.close());
    asker.setGateways([{ node: name, address: gateway }]);
    await eventually(() => expect(asks).toHaveLength(1));
    asker.ask("other" as NodeName);
    asker.ask(name);
    await eventually(() => expect(asks.length).toBeGreaterThan(1));
    expect((asks[1] ?? Infinity) - (asks[0] ?? 0)).toBeLessThan(500);
  });

  test("is believed from the gateway's link address only, and an older one never replaces a newer one", async () => {
    const heard = startClient();
    const say = async (from: string, word: object): Promise<void> => {
      const socket = createSocket("udp4");
      await new Promise<void>((resolve) => socket.bind(port, from, resolve));
      await new Promise<void>((resolve) => socket.send(JSON.stringify(word), port, client, () => resolve()));
      socket.close();
    };
    const word = { t: "state", s: "Draining", d: [], b: "run", n: 5 };
    await say("127.78.1.2", word);
    await say(gateway, { ...word, s: "Nonsense" });
    await say(gateway, word);
    await say(gateway, { ...word, s: "Serving", n: 4 });
    await say(gateway, { ...word, s: "UplinkDown", n: 6 });
    await say(gateway, { ...word, s: "Serving", b: "next run", n: 1 });
    await eventually(() => expect(heard.map(({ state }) => state)).toEqual(["Draining", "UplinkDown", "Serving"]));
  });
});
