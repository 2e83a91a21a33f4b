import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as joinPath } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { IsthmusError } from "../../mesh/errors.ts";
import { formatJoinToken } from "../../mesh/model/token.ts";
import type { ControllerMessage, JoinResponse } from "../../mesh/model/wire.ts";
import { readCache } from "../../node-agent/cache.ts";
import { places, type Places } from "../../node-agent/files.ts";
import { type Holdings, NOTHING_HELD, viewData } from "../../node-agent/holdings.ts";
import { certificateTimes, readIdentity } from "../../node-agent/identity.ts";
import { join, renew } from "../../node-agent/join.ts";
import { loadOrMakeKeys } from "../../node-agent/keys.ts";
import { createSession, type Session } from "../../node-agent/session.ts";
import { eventually, type FakeController, fakeController, type FakePki, fakePki } from "./fake-controller.ts";

const SECRET = "A".repeat(43);
const VIEWS = { mesh: { network: { name: "isthmus" }, "peer/a": { i: 1 } }, "node/a": { self: { name: "a" } } };
const HELLO: ControllerMessage = {
  t: "hello",
  at: { lineage: "l", epoch: 1, revision: 5 },
  format: 1,
  network: "isthmus" as never,
  views: ["mesh", "node/a"],
  recovering: false,
  now: 0,
};

let folder = "";
let at: Places;
let pki: FakePki;
const open: FakeController[] = [];
const stop = new Set<AbortController>();

beforeEach(async () => {
  folder = mkdtempSync(joinPath(tmpdir(), "ist-f-session-"));
  at = places(joinPath(folder, "data"), joinPath(folder, "run"));
  pki = await fakePki();
});
afterEach(async () => {
  for (const one of stop) one.abort();
  for (const one of open.splice(0)) await one.close();
  rmSync(folder, { recursive: true, force: true });
});

async function controller(options: { role?: string; port?: number } = {}): Promise<FakeController> {
  const fake = await fakeController(pki, options);
  open.push(fake);
  fake.onPost = async (_, body) => answerTo(fake, body.csr, body.name);
  fake.onHello = () => [HELLO];
  return fake;
}

async function answerTo(fake: FakeController, csr: string, name: string, days = 90): Promise<JoinResponse> {
  return {
    node: name as JoinResponse["node"],
    network: "isthmus" as JoinResponse["network"],
    position: { lineage: "l", epoch: 1, revision: 5 },
    certificate: await pki.sign(csr, name, days),
    roots: [pki.rootPem],
    controllers: [fake.address],
    views: VIEWS,
  };
}

const tokenFor = (addresses: string[], pin = pki.pin): string => formatJoinToken({ controllers: addresses, secret: SECRET, name: "t", pin });
const joinWith = (token: string, name = "a"): ReturnType<typeof join> => join(at, { token, name, found: [] }, () => {}, AbortSignal.timeout(15_000));
const failureOf = async (work: Promise<unknown>): Promise<IsthmusError> =>
  work.then(
    () => Promise.reject(new Error("it worked")),
    (error: IsthmusError) => error,
  );

interface Started {
  readonly session: Session;
  readonly plans: Holdings[];
  readonly errors: IsthmusError[];
  removed: number;
  /** Where verified controllers were reached. */
  readonly remotes: (string | undefined)[];
  /** Of this machine. */
  readonly addresses: Set<string>;
  onDisconnected: () => void;
}

function start(fake: FakeController, addresses = [fake.address]): Started {
  const abort = new AbortController();
  stop.add(abort);
  const keys = loadOrMakeKeys(at);
  const cached = readCache(at.plan, 0);
  const result = {
    plans: [] as Holdings[],
    errors: [] as IsthmusError[],
    removed: 0,
    remotes: [] as (string | undefined)[],
    addresses: new Set(["127.0.0.1"]),
    onDisconnected: () => {},
  };
  const session = createSession(cached.state === "read" ? cached.holdings : NOTHING_HELD, {
    who: { node: "a", version: "0", bootId: "b", machineId: "m" },
    controllers: () => addresses,
    credentials: () => ({ key: keys.tlsKey, certificate: readFileSync(at.certificate, "utf8"), roots: readFileSync(at.roots, "utf8") }),
    now: Date.now,
    hasAddress: (address) => result.addresses.has(address.replace("::ffff:", "")),
    renew: async () => {},
    onHoldings: (holdings) => void result.plans.push(holdings),
    onConnected: (_address, _now, remote) => void result.remotes.push(remote),
    onDisconnected(error) {
      result.errors.push(error);
      result.onDisconnected();
    },
    onRemoved: () => void result.removed++,
    onAsk: async (what, body) => (what === "status" ? { asked: body } : Promise.reject(new Error("no"))),
    log: () => {},
  });
  void session.run(abort.signal);
  return Object.assign(result, { session });
}

describe("join", () => {
  test("makes keys here, keeps what the controller answered, and the plan is on disk", async () => {
    const fake = await controller();
    await joinWith(tokenFor([fake.address]));
    expect(readIdentity(at)).toMatchObject({ node: "a", network: "isthmus", controllers: [fake.address] });
    const cached = readCache(at.plan, 0);
    expect(cached.state === "read" && Object.fromEntries([...viewData(cached.holdings)].map(([id, data]) => [id, Object.fromEntries(data)]))).toEqual(
      VIEWS,
    );
    const { body } = fake.requests[0] ?? {};
    expect(body).toMatchObject({ token: SECRET, name: "a" });
    expect(JSON.stringify(body)).not.toContain(readFileSync(at.wgKey, "utf8").trim());
  });

  test("tries each controller in turn, and a retry has the same keys", async () => {
    const fake = await controller();
    fake.onPost = async (_, body) =>
      fake.requests.length === 1 ? { status: 503, body: { code: "Recovering", message: "wait" } } : answerTo(fake, body.csr, body.name);
    await joinWith(tokenFor(["127.0.0.1:1", fake.address]));
    expect(new Set(fake.requests.map(({ body }) => body.publicKey)).size).toBe(1);
    expect(fake.requests.length).toBeGreaterThan(1);
  });

  test("a controller with another root is refused before the secret leaves", async () => {
    const fake = await controller();
    const error = await failureOf(joinWith(tokenFor([fake.address], "0".repeat(64))));
    expect(error.code).toBe("PinMismatch");
    expect(fake.requests).toEqual([]);
  });

  test("a node's certificate of the right network is no controller", async () => {
    const fake = await controller({ role: "node" });
    expect((await failureOf(joinWith(tokenFor([fake.address])))).code).toBe("PinMismatch");
    expect(fake.requests).toEqual([]);
  });

  test("what the controller says against a token comes out as it was said", async () => {
    const fake = await controller();
    fake.onPost = async () => ({ status: 401, body: { code: "TokenSpent", message: "the token was used 3 of 3 times", remedy: "make a new one" } });
    const error = await failureOf(joinWith(tokenFor([fake.address])));
    expect(error).toMatchObject({ code: "TokenSpent", remedy: "make a new one" });
    expect(readIdentity(at)).toBeUndefined();
  });

  test("a machine that has joined says so", async () => {
    const fake = await controller();
    await joinWith(tokenFor([fake.address]));
    const error = await failureOf(joinWith(tokenFor([fake.address]), "other"));
    expect(error).toMatchObject({ code: "AlreadyExists" });
    expect(error.message).toContain("as a in network isthmus");
  });

  test("a token cut short, a bad name and a bad endpoint are told apart", async () => {
    expect((await failureOf(joinWith(tokenFor(["h:1"]).slice(0, -3)))).code).toBe("TokenMalformed");
    expect((await failureOf(joinWith(tokenFor(["h:1"]), "Not_A_Name"))).code).toBe("Invalid");
    const flags = { endpoints: ["203.0.113.5:51820", "nonsense"], advertise: ["10.0.0.1/8"] };
    const error = await failureOf(join(at, { token: tokenFor(["h:1"]), name: "a", ...flags, found: [] }, () => {}, AbortSignal.timeout(5_000)));
    // Each said once, with its flag: the headline repeats none of them.
    expect(error).toMatchObject({ code: "Invalid", message: "this machine cannot join with these flags" });
    expect(error.faults).toEqual([
      { path: "--endpoint", value: "nonsense", message: expect.stringContaining("ADDR:PORT") as string },
      { path: "--advertise", value: "10.0.0.1/8", message: expect.stringContaining("10.0.0.0/8") as string },
    ]);
  });

  test("nobody answers: the error names the address", async () => {
    const error = await failureOf(joinWith(tokenFor(["127.0.0.1:1"])));
    expect(error).toMatchObject({ code: "Unreachable" });
    expect(error.message).toContain("127.0.0.1:1");
  });

  test("renewing keeps the key and brings a new certificate", async () => {
    const fake = await controller();
    const identity = await joinWith(tokenFor([fake.address]));
    const before = certificateTimes(readFileSync(at.certificate, "utf8"));
    fake.onPost = async (_, body) => answerTo(fake, body.csr, body.name, 365);
    const files = { certificate: readFileSync(at.certificate, "utf8"), roots: readFileSync(at.roots, "utf8") };
    await renew(at, identity, loadOrMakeKeys(at), files, Date.now(), AbortSignal.timeout(5_000));
    expect(certificateTimes(readFileSync(at.certificate, "utf8")).expires).toBeGreaterThan(before.expires);
    expect(fake.requests.at(-1)).toMatchObject({ path: "/v1/renew", body: { name: "a" } });
    expect(fake.requests.at(-1)?.body.token).toBeUndefined();
  });
});

describe("session", () => {
  test("greets with what it holds, takes changes, and resumes after the connection breaks", async () => {
    const fake = await controller();
    await joinWith(tokenFor([fake.address]));
    const agent = start(fake);
    await eventually("hello", () => fake.heard.length > 0 && agent.session.connected !== undefined);
    expect(fake.heard[0]).toMatchObject({ t: "hello", node: "a", seen: { revision: 5 }, views: { mesh: { r: 5 } } });
    fake.say({ t: "delta", v: "mesh", r: 6, p: { "peer/b": { i: 2 } } });
    await eventually("delta", () => agent.plans.some((held) => held.views.get("mesh")?.view.data.has("peer/b") === true));
    fake.drop();
    await eventually("second hello", () => fake.heard.filter(({ t }) => t === "hello").length === 2);
    expect(fake.heard.filter(({ t }) => t === "hello").at(-1)).toMatchObject({ seen: { revision: 6 } });
  });

  test("connects anew when the machine loses the address that the connection leaves from", async () => {
    const fake = await controller();
    await joinWith(tokenFor([fake.address]));
    const agent = start(fake);
    await eventually("connection", () => agent.session.connected !== undefined);
    expect(agent.remotes).toEqual(["127.0.0.1"]);
    agent.addresses.clear();
    await eventually("second hello", () => fake.heard.filter(({ t }) => t === "hello").length === 2, 10_000);
    agent.addresses.add("127.0.0.1");
    await eventually("connection", () => agent.session.connected !== undefined, 10_000);
  });

  test("a new connection that is asked for while one ends comes at once", async () => {
    const fake = await controller();
    await joinWith(tokenFor([fake.address]));
    fake.refuseWith = 401;
    // No back-off ends while this clock stands still.
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      const agent = start(fake);
      agent.onDisconnected = () => {
        if (agent.errors.length === 1) agent.session.reconnect();
      };
      const deadline = performance.now() + 10_000;
      while (agent.errors.length < 2 && performance.now() < deadline) await new Promise((done) => setImmediate(done));
      expect(agent.errors.length).toBe(2);
    } finally {
      vi.useRealTimers();
    }
  }, 20_000);

  test("goes on to the next controller, and survives refusals without losing its plan", async () => {
    const fake = await controller();
    await joinWith(tokenFor([fake.address]));
    fake.refuseWith = 401;
    const agent = start(fake, ["127.0.0.1:1", fake.address]);
    await eventually("a refusal", () => agent.errors.some(({ code }) => code === "Unauthenticated"));
    expect(agent.session.holdings.views.size).toBe(2);
    expect(agent.removed).toBe(0);
    fake.refuseWith = 0;
    await eventually("connection", () => agent.session.connected?.address === fake.address, 10_000);
  });

  test("nonsense, unknown messages and another node's removal change nothing; its own removal is told", async () => {
    const fake = await controller();
    await joinWith(tokenFor([fake.address]));
    const agent = start(fake);
    await eventually("connection", () => agent.session.connected !== undefined);
    fake.say({ t: "future", x: 1 } as never);
    fake.say("nonsense" as never);
    fake.say({ t: "removed", node: "b" as never });
    fake.say({ t: "ask", id: "1", what: "status", body: 42 });
    await eventually("answer", () => fake.heard.some((one) => one.t === "answer"));
    expect(fake.heard.find(({ t }) => t === "answer")).toEqual({ t: "answer", id: "1", body: { asked: 42 } });
    expect(agent.removed).toBe(0);
    fake.say({ t: "removed", node: "a" as never });
    await eventually("removal", () => agent.removed === 1);
  });

  test("a question that fails is answered with the error", async () => {
    const fake = await controller();
    await joinWith(tokenFor([fake.address]));
    const agent = start(fake);
    await eventually("connection", () => agent.session.connected !== undefined);
    fake.say({ t: "ask", id: "2", what: "explain" });
    await eventually("answer", () => fake.heard.some((one) => one.t === "answer"));
    expect(fake.heard.find(({ t }) => t === "answer")).toMatchObject({ id: "2", error: { code: "Internal" } });
  });

  test("the plan waits until every announced view is here", async () => {
    const fake = await controller();
    await joinWith(tokenFor([fake.address]));
    fake.onHello = () => [{ ...HELLO, views: ["mesh", "node/a", "egress/web"] }];
    const agent = start(fake);
    await eventually("hello", () => fake.heard.length > 0);
    fake.say({ t: "delta", v: "mesh", r: 6, p: { "peer/b": { i: 2 } } });
    fake.say({ t: "ask", id: "1", what: "status" });
    await eventually("answer", () => fake.heard.some((one) => one.t === "answer"));
    expect(agent.plans).toEqual([]);
    fake.say({ t: "fill", v: "egress/web", r: 6, p: { path: 1 } });
    await eventually("plan", () => agent.plans.at(-1)?.views.size === 3);
  });

  test("half of a change is never a plan: a view that does not come is asked for, again and again", async () => {
    const fake = await controller();
    await joinWith(tokenFor([fake.address]));
    const agent = start(fake);
    await eventually("connection", () => agent.session.connected !== undefined);
    agent.plans.length = 0;
    fake.say({ t: "views", add: ["egress/two"], drop: [], change: ["mesh", "node/a"] });
    fake.say({ t: "delta", v: "mesh", r: 6, d: ["peer/a"] });
    const asked = (id: string): number => fake.heard.filter((one) => one.t === "buckets" && one.v === id).length;
    await eventually("two questions for each", () => asked("egress/two") > 1 && asked("node/a") > 1, 30_000);
    expect(asked("mesh")).toBe(0);
    expect(agent.plans).toEqual([]);
    fake.say({ t: "fill", v: "egress/two", r: 6, p: { path: 1 } });
    fake.say({ t: "delta", v: "node/a", r: 6 });
    await eventually("plan", () => agent.plans.length > 0);
    expect(agent.plans.map((held) => [held.awaiting.size, held.views.get("mesh")?.view.data.has("peer/a"), held.views.size])).toEqual([
      [0, false, 3],
    ]);
  }, 45_000);

  test("what came while another view was awaited is applied when that one is no longer to come", async () => {
    const fake = await controller();
    await joinWith(tokenFor([fake.address]));
    const agent = start(fake);
    await eventually("connection", () => agent.session.connected !== undefined);
    agent.plans.length = 0;
    fake.say({ t: "views", add: ["egress/two"], drop: [] });
    fake.say({ t: "delta", v: "mesh", r: 6, p: { "peer/b": { i: 2 } } });
    fake.say({ t: "views", add: [], drop: ["egress/two"] });
    await eventually("plan", () => agent.plans.at(-1)?.views.get("mesh")?.view.data.has("peer/b") === true);
  });

  test("an agent without any plan takes what it got: nothing is better than that", async () => {
    const fake = await controller();
    await joinWith(tokenFor([fake.address]));
    rmSync(at.plan, { force: true });
    const agent = start(fake);
    await eventually("connection", () => agent.session.connected !== undefined);
    fake.say({ t: "fill", v: "mesh", r: 5, p: VIEWS.mesh });
    await eventually("plan", () => agent.plans.at(-1)?.views.has("mesh") === true, 15_000);
    expect([...(agent.plans.at(-1)?.awaiting ?? [])]).toEqual(["node/a"]);
  }, 30_000);
});
