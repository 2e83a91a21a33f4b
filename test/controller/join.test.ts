import { describe, expect, test, afterAll, beforeAll } from "vitest";
import { X509Certificate } from "node:crypto";
import type { RunningController } from "../../controller/main.ts";
import { matchesPattern } from "../../controller/join/decide.ts";
import { parseJoinToken } from "../../mesh/model/token.ts";
import {
  call,
  eventually,
  https,
  joinBody,
  joinMachine,
  makeAgent,
  makeMachine,
  makeSite,
  makeToken,
  newNode,
  startController,
  temporaryFolder,
} from "./harness.ts";

describe("joining", () => {
  const folder = temporaryFolder();
  let controller: RunningController;
  beforeAll(async () => {
    controller = await startController(folder.path);
    await makeSite(controller, "dc1");
  });
  afterAll(async () => {
    await controller.close();
    folder.remove();
  });

  test("a node gets a certificate, an address and its first plan, and its peers hear of it", async () => {
    const { secret } = await makeToken(controller, { site: "dc1" });
    const one = await newNode(controller, secret, "one", { endpoints: ["203.0.113.1:51820"] });
    const two = await newNode(controller, secret, "two", { endpoints: ["203.0.113.2:51820"] });
    await eventually(() => expect(one.view("mesh")?.get("peer/two")).toMatchObject({ i: 2, k: two.machine.publicKey, s: "dc1" }));
    expect([...(two.view("mesh")?.keys() ?? [])]).toEqual(expect.arrayContaining(["network", "peer/one", "peer/two", "site/dc1"]));
    expect(two.view("node/two")?.get("self")).toMatchObject({ name: "two", index: 2 });
    await one.disconnect();
    await two.disconnect();
  });

  test("the certificate names the node's role and says nothing that the request chose but its key", async () => {
    const { secret } = await makeToken(controller, { site: "dc1" });
    const machine = await makeMachine("certified");
    const { certificate, roots } = await joinMachine(controller, machine, secret);
    const leaf = new X509Certificate(certificate);
    expect(leaf.subjectAltName).toBe("URI:isthmus://node/certified");
    expect(leaf.ca).toBe(false);
    expect(leaf.validFromDate.getTime()).toBeLessThan(Date.now() - 24 * 3_600_000);
    expect(roots).toHaveLength(1);
  });

  test("of 500 joins at once on 100 uses exactly 100 succeed, each with an address of its own (I6)", { timeout: 60_000 }, async () => {
    const { secret, name } = await makeToken(controller, { site: "dc1", uses: 100 });
    const machines = await Promise.all(Array.from({ length: 500 }, (_, i) => makeMachine(`many-${i}`)));
    const outcomes = await Promise.allSettled(machines.map((machine) => joinMachine(controller, machine, secret)));
    const joined = outcomes.filter((one) => one.status === "fulfilled");
    expect(joined).toHaveLength(100);
    const refused = outcomes.flatMap((one) => (one.status === "rejected" ? [(one.reason as { code: string }).code] : []));
    expect(new Set(refused)).toEqual(new Set(["TokenSpent"]));
    const { items } = await call<{ items: { spec: { index: number } }[] }>(controller, "GET", "/v1/resources/meshnodes");
    expect(new Set(items.map((node) => node.spec.index)).size).toBe(items.length);
    expect(await call(controller, "GET", `/v1/resources/jointokens/${name}`)).toMatchObject({ status: { used: 100 } });
  });

  test("a retry with the same keys gives the same node and costs no use, also when the token is spent", async () => {
    const { secret, name } = await makeToken(controller, { site: "dc1", uses: 1 });
    const machine = await makeMachine("retry");
    await Promise.all(Array.from({ length: 5 }, () => joinMachine(controller, machine, secret)));
    const node = await call<{ spec: { index: number } }>(controller, "GET", "/v1/resources/meshnodes/retry");
    const again = await joinMachine(controller, machine, secret);
    expect(again.views["node/retry"]?.["self"]).toMatchObject({ index: node.spec.index });
    expect(await call(controller, "GET", `/v1/resources/jointokens/${name}`)).toMatchObject({ status: { used: 1 } });
  });

  test("a token of a site that was deleted meanwhile lets nobody in, until the site is there again", async () => {
    await makeSite(controller, "short-lived");
    const { secret, name } = await makeToken(controller, { site: "short-lived" });
    const machine = await makeMachine("early");
    await joinMachine(controller, machine, secret);
    await call(controller, "DELETE", "/v1/resources/meshnodes/early");
    await call(controller, "DELETE", "/v1/resources/sites/short-lived");
    await expect(joinMachine(controller, await makeMachine("too-late"), secret)).rejects.toMatchObject({
      code: "NotFound",
      message: expect.stringContaining("short-lived"),
      remedy: expect.stringContaining("token"),
    });
    expect(await call(controller, "GET", `/v1/resources/jointokens/${name}`)).toMatchObject({ status: { used: 1 } });
    await expect(call(controller, "GET", "/v1/resources/meshnodes/too-late")).rejects.toMatchObject({ code: "NotFound" });
    await makeSite(controller, "short-lived");
    await joinMachine(controller, await makeMachine("in-time"), secret);
  });

  test("every reason to refuse has its code, and a refused join uses nothing up", async () => {
    const { secret, name } = await makeToken(controller, { site: "dc1", uses: 1, namePattern: "web-*" });
    const machine = await makeMachine("web-1");
    await expect(joinMachine(controller, machine, "x".repeat(43))).rejects.toMatchObject({ code: "TokenUnknown" });
    await expect(joinMachine(controller, machine, undefined)).rejects.toMatchObject({ code: "Unauthenticated" });
    await expect(joinMachine(controller, await makeMachine("db-1"), secret)).rejects.toMatchObject({ code: "NamePattern" });
    await expect(joinMachine(controller, { ...machine, csr: machine.csr.replace(/[A-Za-z]{4}/, "AAAA") }, secret)).rejects.toMatchObject({
      code: "BadRequest",
    });
    await expect(joinMachine(controller, machine, secret, { network: "other" })).rejects.toMatchObject({ code: "NotFound" });
    await joinMachine(controller, machine, secret);
    await expect(joinMachine(controller, await makeMachine("web-2"), secret)).rejects.toMatchObject({ code: "TokenSpent" });
    await expect(joinMachine(controller, await makeMachine("web-1"), (await makeToken(controller, { site: "dc1" })).secret)).rejects.toMatchObject({
      code: "NameTaken",
    });
    await expect(joinMachine(controller, { ...machine, machineId: "e".repeat(64) }, undefined)).rejects.toMatchObject({ code: "CloneDetected" });
    const stolen = { ...(await makeMachine("web-3")), publicKey: machine.publicKey };
    await expect(joinMachine(controller, stolen, (await makeToken(controller, { site: "dc1" })).secret)).rejects.toMatchObject({
      code: "CloneDetected",
    });
    await call(controller, "POST", `/v1/tokens/${name}/revoke`);
    await expect(joinMachine(controller, await makeMachine("web-4"), secret)).rejects.toMatchObject({ code: "TokenUnknown" });
  });

  test("a body that is not a join request is refused with the field's name", async () => {
    const machine = await makeMachine("odd");
    expect(await https(controller, "POST", "/v1/join", { ...joinBody(machine, "x"), publicKey: "nonsense" })).toMatchObject({
      status: 400,
      body: { code: "BadRequest", faults: expect.arrayContaining([expect.objectContaining({ path: "publicKey" })]) },
    });
  });

  test("labels and grants of the token become the node's", async () => {
    const { secret } = await makeToken(controller, { site: "dc1", labels: { role: "edge" }, grants: { advertise: ["10.77.0.0/16"] } });
    await joinMachine(controller, await makeMachine("labelled"), secret, { advertise: ["10.77.1.0/24", "10.78.0.0/16"] });
    expect(await call(controller, "GET", "/v1/resources/meshnodes/labelled")).toMatchObject({
      spec: { labels: { role: "edge" } },
      status: { pendingCidrs: ["10.78.0.0/16"] },
    });
    const { items } = await call<{ items: unknown[] }>(
      controller,
      "GET",
      `/v1/resources/meshnodes?labelSelector=${encodeURIComponent("role=edge,location=cloud")}`,
    );
    expect(items).toHaveLength(1);
  });

  test("the secret stands nowhere but in the answer that made it (I8)", async () => {
    const { text, name } = await makeToken(controller, { site: "dc1" });
    const { secret } = parseJoinToken(text);
    const { readFileSync } = await import("node:fs");
    const store = Buffer.concat(["store.db", "store.db-wal"].map((file) => readFileSync(`${folder.path}/data/${file}`)));
    expect(store.includes(name)).toBe(true);
    expect(store.includes(secret)).toBe(false);
    expect(readFileSync(`${folder.path}/data/audit.jsonl`, "utf8")).not.toContain(secret);
  });

  test("a name pattern matches as a shell's star does", () => {
    for (const [name, pattern, expected] of [
      ["datacenter1", "datacenter*", true],
      ["xdatacenter1", "datacenter*", false],
      ["a-b-c", "a*b*c", true],
      ["ab", "ab*b", false],
      ["aaa", "a*a*a", true],
      ["aa", "a*a*a", false],
      ["exact", "exact", true],
      ["exactly", "exact", false],
      ["anything", "*", true],
    ] as const) {
      expect([name, pattern, matchesPattern(name, pattern)]).toEqual([name, pattern, expected]);
    }
  });
});

describe("a node whose certificate expired while the controller was away", () => {
  test("is refused with the way out, renews with its key on record, and is back", async () => {
    const folder = temporaryFolder();
    const monthsAgo = Date.now() - 90 * 86_400_000;
    const past = await startController(folder.path, { clock: () => monthsAgo });
    await makeSite(past, "dc1");
    const { secret } = await makeToken(past, { site: "dc1" });
    const machine = await makeMachine("sleeper");
    const removedMachine = await makeMachine("removed-meanwhile");
    const stale = makeAgent(machine, await joinMachine(past, machine, secret));
    const staleRemoved = makeAgent(removedMachine, await joinMachine(past, removedMachine, secret));
    await past.close();
    const controller = await startController(folder.path);
    await stale.connect(controller);
    expect(stale.messages.at(-1)).toMatchObject({ t: "refused", code: "CertificateExpired" });
    const fresh = makeAgent(machine, await joinMachine(controller, machine, undefined), stale.holdings);
    await fresh.connect(controller);
    expect(fresh.messages.at(-1)).toMatchObject({ t: "hello", recovering: false });
    await call(controller, "DELETE", "/v1/resources/meshnodes/removed-meanwhile");
    await staleRemoved.connect(controller);
    expect(staleRemoved.messages.at(-1)).toEqual({ t: "removed", node: "removed-meanwhile" });
    await controller.close();
    folder.remove();
  });
});
