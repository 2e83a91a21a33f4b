import { describe, expect, test } from "vitest";
import { parsePlan } from "../../mesh/compile/parse-plan.ts";
import { claimsOf } from "../../mesh/kernel/desired.ts";
import { kubernetesServer, timeServers, timesyncServers } from "../../node-agent/drivers/host-facts.ts";
import {
  type Answers,
  controllerServices,
  createNameKeeper,
  formatAnswers,
  namesOf,
  parseAnswers,
  pruned,
  remember,
  withServices,
} from "../../node-agent/protected-names.ts";
import { eventually } from "./fake-controller.ts";
import { HOST, rawViews } from "./plans.ts";

const DAY = 24 * 3_600_000;
const NONE: Answers = new Map();
const addresses = (answers: Answers, name: string): string[] => (answers.get(name) ?? []).map(({ address }) => address);

describe("what answers are kept", () => {
  test("the newest first, earlier ones for a day of good answers, and an empty answer changes nothing", () => {
    const first = remember(NONE, "c.example", ["198.51.100.1", "2001:DB8::1", "127.0.0.1", "nonsense"], 0);
    expect(addresses(first, "c.example")).toEqual(["198.51.100.1", "2001:db8::1"]);
    const second = remember(first, "c.example", ["::ffff:198.51.100.2"], DAY - 1);
    expect(addresses(second, "c.example")).toEqual(["198.51.100.2", "198.51.100.1", "2001:db8::1"]);
    expect(remember(second, "c.example", [], 9 * DAY)).toBe(second);
    expect(addresses(remember(second, "c.example", ["198.51.100.2"], DAY + 1), "c.example")).toEqual(["198.51.100.2"]);
  });

  test("a pool that turns keeps a bounded number", () => {
    let answers = NONE;
    for (let i = 0; i < 200; i++) answers = remember(answers, "pool", [`198.51.100.${i}`], i);
    expect(addresses(answers, "pool")).toHaveLength(16);
    expect(addresses(answers, "pool")[0]).toBe("198.51.100.199");
  });

  test("what was heard within the hour is no news, in whatever order", () => {
    const known = remember(NONE, "c.example", ["198.51.100.1", "198.51.100.2"], 0);
    expect(remember(known, "c.example", ["198.51.100.2", "198.51.100.1"], 3_599_999)).toBe(known);
    expect(remember(known, "c.example", ["198.51.100.2"], 3_600_000)).not.toBe(known);
  });

  test("they come back from disk; a damaged file is refused", () => {
    const answers = remember(NONE, "c.example", ["198.51.100.1"], 7);
    expect(parseAnswers(JSON.parse(formatAnswers(answers)))).toEqual(answers);
    expect(() => parseAnswers({ "c.example": [1] })).toThrow();
  });

  test("names are found among addresses, and those nobody names any more are forgotten", () => {
    const services = controllerServices(["C.example:7443", "203.0.113.9:7443", "[2001:db8::9]:7443", "not an address"]);
    expect(namesOf(services)).toEqual(["c.example"]);
    const answers = remember(remember(NONE, "c.example", ["198.51.100.1"], 0), "old", ["198.51.100.2"], 0);
    expect([...pruned(answers, ["c.example"]).keys()]).toEqual(["c.example"]);
  });
});

test("I9: a controller by name, one that only the token named, and a time server by name are carved out of 0.0.0.0/0", () => {
  const { plan } = parsePlan(rawViews({ "egress/web": { "d/0.0.0.0/0": 1 } }));
  if (plan === undefined) throw new Error("no plan");
  const services = [...controllerServices(["c.example:7443", "192.0.2.7:7443"]), { host: "time.example", why: "a time server of this node" }];
  const answers = remember(remember(NONE, "c.example", ["192.0.2.5"], 0), "time.example", ["192.0.2.6"], 0);
  const host = { ...HOST, protectedAddresses: withServices(HOST.protectedAddresses, services, answers) };
  expect(host.protectedAddresses).toContainEqual({ address: "192.0.2.5", why: "the controller c.example:7443" });
  const { throws } = claimsOf({ plan, host, lanChoices: new Map() });
  expect(throws).toEqual(expect.arrayContaining(["192.0.2.5/32", "192.0.2.6/32", "192.0.2.7/32"]));
});

test("names and addresses are found in the files of time daemons and in a kubeconfig", () => {
  expect(timeServers("# server no.example\npool 2.debian.pool.ntp.org iburst\n server 192.0.2.1\n")).toEqual(["2.debian.pool.ntp.org", "192.0.2.1"]);
  expect(timesyncServers("[Time]\n#NTP=no.example\nNTP=time.example 192.0.2.1\nFallbackNTP=\n")).toEqual(["time.example", "192.0.2.1"]);
  const at = (url: string): string | undefined => kubernetesServer(`clusters:\n- cluster:\n    server: ${url}\n`);
  expect([at("https://api.example:6443"), at('"https://192.0.2.1"'), at("https://[2001:db8::1]:6443/")]).toEqual([
    "api.example",
    "192.0.2.1",
    "2001:db8::1",
  ]);
});

describe("the loop", () => {
  const keeperOf = (lookup: (name: string, until: AbortSignal) => Promise<readonly string[]>, stored = NONE) => {
    const told: [Answers, boolean][] = [];
    const stop = new AbortController();
    const keeper = createNameKeeper({
      stored,
      services: () => controllerServices(["slow.example:1", "c.example:1"]),
      lookup,
      now: () => 5,
      onAnswers: (answers, moved) => void told.push([answers, moved]),
      lookupMs: 20,
    });
    return { keeper, told, stop, running: keeper.run(stop.signal) };
  };

  test("with DNS dead the stored answers stay", async () => {
    const stored = remember(NONE, "c.example", ["198.51.100.1"], 1);
    let asked = 0;
    const { keeper, told, stop, running } = keeperOf(async () => (asked++, Promise.reject(new Error("EAI_AGAIN"))), stored);
    await eventually("asked", () => asked >= 2);
    stop.abort();
    await running;
    expect(keeper.answers).toBe(stored);
    expect(told).toEqual([]);
  });

  test("a lookup that hangs ends no round for ever, is never doubled, and its late answer counts", async () => {
    let answerSlow: ((found: string[]) => void) | undefined;
    let slow = 0;
    const { keeper, stop, running } = keeperOf((name) => {
      if (name !== "slow.example") return Promise.resolve(["198.51.100.1"]);
      slow++;
      return slow > 1 ? Promise.resolve([]) : new Promise((done) => (answerSlow = done));
    });
    await eventually("hangs", () => answerSlow !== undefined);
    await new Promise((done) => setTimeout(done, 60));
    keeper.wake();
    await new Promise((done) => setTimeout(done, 60));
    expect(slow).toBe(1);
    answerSlow?.(["198.51.100.2"]);
    await eventually("both", () => keeper.answers.size === 2);
    stop.abort();
    await running;
  });

  test("a verified contact counts as an answer, and a stop does not wait for a lookup", async () => {
    let given: AbortSignal | undefined;
    const { keeper, told, stop, running } = keeperOf((_name, until) => {
      given = until;
      return new Promise(() => {});
    });
    keeper.contact("c.example:7443", "::ffff:198.51.100.3");
    keeper.contact("c.example:7443", "198.51.100.3");
    keeper.contact("203.0.113.9:7443", "203.0.113.9");
    expect(addresses(keeper.answers, "c.example")).toEqual(["198.51.100.3"]);
    expect(told.map(([, moved]) => moved)).toEqual([true]);
    stop.abort();
    await running;
    expect(given?.aborted).toBe(true);
  });
});
