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
      limit.done();
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
  let held = 0;
  const hold = (): void => {
    for (; held < 100_000; held++) limit.admit(address(`192.0.${Math.floor(held / 200) % 250}.${held % 200}`));
  };
  expect(hold).toThrow(/works on \d+/);
  expect(held).toBeGreaterThanOrEqual(1_000);
  limit.done();
  limit.admit(undefined);
});

test("the routes that anybody may call refuse what comes too fast, and hold no place for what they answered", async () => {
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
