import { connect, type Socket } from "node:net";
import fastify from "fastify";
import { expect, test } from "vitest";
import { joinRoutes } from "../../../controller/api/join-routes.ts";
import type { Services } from "../../../controller/api/services.ts";
import { createJoinLimit } from "../../../controller/join/limit.ts";
import { asIsthmusError } from "../../../mesh/errors.ts";
import type { IpAddress } from "../../../mesh/model/scalars.ts";

const address = (text: string): IpAddress => text as IpAddress;

/** How many of so many calls of that address are let in; each is answered at once. */
function admitted(limit: ReturnType<typeof createJoinLimit>, from: IpAddress | undefined, calls: number): number {
  let count = 0;
  for (let i = 0; i < calls; i++) {
    try {
      limit.admit(from);
      count++;
    } catch (thrown) {
      expect(thrown).toMatchObject({ code: "TooManyMessages", retry: "transient" });
    }
  }
  return count;
}

test("an address that calls without end is held to a rate, and takes nothing of the others", () => {
  let now = 0;
  const limit = createJoinLimit(() => now);
  const first = admitted(limit, address("192.0.2.1"), 10_000);
  expect(first).toBeGreaterThanOrEqual(1_000);
  expect(first).toBeLessThan(5_000);
  expect(admitted(limit, address("192.0.2.2"), 500)).toBe(500);
  now += 1_000;
  const second = admitted(limit, address("192.0.2.1"), 10_000);
  expect(second).toBeGreaterThan(0);
  expect(second).toBeLessThan(200);
});

test("all IPv6 addresses of one machine count as one", () => {
  const limit = createJoinLimit(() => 0);
  const calls = Array.from({ length: 3_000 }, (_, i) => admitted(limit, address(`2001:db8::${(i + 1).toString(16)}`), 1));
  expect(calls.filter((one) => one === 1).length).toBeLessThan(3_000);
  expect(admitted(limit, address("2001:db8:0:1::1"), 1)).toBe(1);
});

test("no more are worked on at one time than the controller can hold, whoever sends them", () => {
  const limit = createJoinLimit(() => 0);
  const held: Disposable[] = [];
  const hold = (): void => {
    while (held.length < 100_000) held.push(limit.begin(address(`192.0.${Math.floor(held.length / 200) % 250}.${held.length % 200}`)));
  };
  expect(hold).toThrow(/works on \d+/);
  expect(held.length).toBeGreaterThanOrEqual(1_000);
  held[0]?.[Symbol.dispose]();
  limit.begin(undefined);
  expect(() => limit.begin(undefined)).toThrow(/works on \d+/);
});

test("one address takes no more than a share of the places, and has it again when they are given back", () => {
  const limit = createJoinLimit(() => 0);
  const held: Disposable[] = [];
  const hold = (): void => {
    while (held.length < 100_000) held.push(limit.begin(address("192.0.2.1")));
  };
  expect(hold).toThrow(/from 192\.0\.2\.1/);
  const share = held.length;
  expect(share).toBeGreaterThanOrEqual(1_000);
  limit.begin(address("192.0.2.2"));
  for (const place of held.splice(0)) place[Symbol.dispose]();
  expect(hold).toThrow(/from 192\.0\.2\.1/);
  expect(held.length).toBe(share);
});

test("the routes that anybody may call refuse what comes too fast, and nobody else's calls", async () => {
  const app = fastify();
  app.setErrorHandler((thrown, _, reply) => reply.code(asIsthmusError(thrown).http).send({}));
  joinRoutes(app, {} as Services);
  const counts = new Map<number, number>();
  for (let i = 0; i < 2_300; i++) {
    const { statusCode } = await app.inject({ method: "POST", url: "/v1/renew", payload: {} });
    counts.set(statusCode, (counts.get(statusCode) ?? 0) + 1);
  }
  expect(counts.get(400)).toBeGreaterThanOrEqual(2_000);
  expect(counts.get(429)).toBeGreaterThan(0);
  expect((await app.inject({ method: "POST", url: "/v1/join", payload: {}, remoteAddress: "192.0.2.9" })).statusCode).toBe(400);
  await app.close();
});

test("a host that sends headers without end and no body keeps nobody else out", async () => {
  const app = fastify({ forceCloseConnections: true });
  app.setErrorHandler((thrown, _, reply) => reply.code(asIsthmusError(thrown).http).send({}));
  const calls = 2_000;
  let heard = 0;
  const allHeard = Promise.withResolvers<void>();
  app.addHook("onRequest", (_request, _reply, next) => {
    if (++heard === calls) allHeard.resolve();
    next();
  });
  joinRoutes(app, {} as Services);
  await app.listen({ host: "127.0.0.1", port: 0 });
  const { port } = app.server.address() as { port: number };
  const head = "POST /v1/renew HTTP/1.1\r\nhost: c\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n";
  const sockets: Socket[] = [];
  for (let i = 0; i < calls; i++) {
    const socket = connect({ host: "127.0.0.1", port, localAddress: "127.0.0.5" });
    socket.on("error", () => {});
    socket.write(`${head}{`);
    sockets.push(socket);
  }
  await allHeard.promise;
  const status = await new Promise<string>((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port, localAddress: "127.0.0.6" });
    sockets.push(socket);
    socket.once("error", reject);
    socket.once("data", (data: Buffer) => resolve(data.toString().slice(9, 12)));
    socket.write(`${head}{}`);
  });
  expect(status).toBe("400");
  for (const socket of sockets) socket.destroy();
  await app.close();
});
