import { chmodSync, cpSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import type { Position } from "../../mesh/model/wire.ts";
import { restoreController, type RunningController } from "../../controller/main.ts";
import {
  call,
  eventually,
  joinMachine,
  makeMachine,
  makeSite,
  makeToken,
  newNode,
  saveBackup,
  startController,
  startRestored,
  startWithSite,
  temporaryFolder,
  type TestAgent,
} from "./harness.ts";

interface Status {
  recovering: boolean;
  position: { epoch: number; revision: number; lineage: string };
  missing?: string[];
}

const status = (controller: RunningController): Promise<Status> => call<Status>(controller, "GET", "/v1/status");

function indexOf(agent: TestAgent): number {
  const self = agent.view(`node/${agent.machine.name}`)?.get("self") as { index: number } | undefined;
  return self?.index ?? 0;
}

/** Every agent that runs connects, and again whenever the controller asks it to. */
async function reconnect(controller: RunningController, agents: readonly TestAgent[]): Promise<void> {
  await Promise.all(agents.filter((agent) => !agent.connected).map((agent) => agent.connect(controller)));
}

describe("a backup of yesterday restored under running agents", () => {
  test("loses no peer, gives no address twice, takes back who joined since, and voids old tokens", { timeout: 60_000 }, async () => {
    const folder = temporaryFolder();
    const first = await startController(folder.path);
    await makeSite(first, "dc1");
    const token = await makeToken(first, { site: "dc1", labels: { role: "edge" } });
    const old = await newNode(first, token.secret, "old");
    const backup = join(folder.path, "backup");
    await saveBackup(first, backup);
    const newer = await newNode(first, token.secret, "newer");
    await eventually(() => expect(old.view("mesh")?.has("peer/newer")).toBe(true));
    const index = indexOf(newer);
    await first.close();

    const elsewhere = temporaryFolder();
    await restoreController({ data: join(elsewhere.path, "data"), from: backup });
    expect(statSync(join(elsewhere.path, "data", "pki", "root.key")).mode & 0o777).toBe(0o600);
    const second = await startController(elsewhere.path, { recoveryQuietMs: 300 });
    expect(await status(second)).toMatchObject({ recovering: true, position: { epoch: 2 } });
    await expect(makeToken(second, { site: "dc1" })).rejects.toMatchObject({ code: "Recovering" });
    await expect(joinMachine(second, await makeMachine("stranger"), token.secret)).rejects.toMatchObject({ code: "Recovering" });
    await expect(call(second, "DELETE", "/v1/resources/meshnodes/old")).rejects.toMatchObject({ code: "Recovering" });

    await old.connect(second);
    expect(old.messages.at(-1)).toMatchObject({ t: "hello", recovering: true });
    expect(old.view("mesh")?.has("peer/newer")).toBe(true);
    await newer.connect(second);
    await eventually(async () => {
      await reconnect(second, [old, newer]);
      expect(await status(second)).toMatchObject({ recovering: false });
    }, 15_000);
    await eventually(async () => {
      await reconnect(second, [old, newer]);
      expect(old.view("mesh")?.get("peer/newer")).toMatchObject({ i: index });
      expect(old.holdings.guarded).toBe(false);
    });
    expect(await call(second, "GET", "/v1/resources/meshnodes/newer")).toMatchObject({ spec: { index, labels: { role: "edge" } } });
    // What an admin took away after the certificate was made is back, too: somebody has to look.
    const { items: told } = await call<{ items: { reason: string; type: string; message: string }[] }>(second, "GET", "/v1/events?about=node/newer");
    const { type, message = "" } = told.find(({ reason }) => reason === "NodeReadmitted") ?? {};
    const [, issued = "", granted] = /granted by (\S+Z): (.*?)\. If/.exec(message) ?? [];
    expect({ type, granted }).toEqual({ type: "Warning", granted: "label role=edge" });
    expect(Math.abs(Date.parse(issued) - Date.now())).toBeLessThan(24 * 3_600_000);
    await expect(joinMachine(second, await makeMachine("late"), token.secret)).rejects.toMatchObject({ code: "TokenUnknown" });
    const fresh = await newNode(second, (await makeToken(second, { site: "dc1" })).secret, "fresh");
    expect(indexOf(fresh)).toBeGreaterThan(index);
    await second.close();
    folder.remove();
    elsewhere.remove();
  });

  test("waits for a node that does not come back until an admin confirms", async () => {
    const folder = temporaryFolder();
    const { controller: first, secret } = await startWithSite(folder.path);
    const here = await newNode(first, secret, "here");
    await newNode(first, secret, "dead");
    await saveBackup(first, join(folder.path, "backup"));
    await first.close();
    const second = await startRestored(folder.path, join(folder.path, "backup"), { recoveryQuietMs: 0 });
    expect(await call(second, "GET", "/v1/events?about=controller")).toMatchObject({
      items: [{ type: "Warning", reason: "Recovery", message: expect.stringContaining("restored from a backup") as string }],
    });
    await here.connect(second);
    await eventually(async () => expect((await status(second)).missing).toEqual(["dead"]));
    expect(await call(second, "POST", "/v1/recovery/confirm", {})).toMatchObject({ recovering: false, missing: ["dead"] });
    await eventually(() => expect(here.connected).toBe(false));
    await here.connect(second);
    expect(here.messages.at(-1)).toMatchObject({ t: "hello", recovering: false });
    expect(here.view("mesh")?.has("peer/dead")).toBe(true);
    await second.close();
    folder.remove();
  });
});

test("a small network still has addresses for its nodes after one recovery upon the other, and gives none twice", async () => {
  const folder = temporaryFolder();
  const network = { overlayV4: "10.91.0.0/27", linksV4: "10.92.0.0/26" };
  let controller = await startController(folder.path, { network });
  await makeSite(controller, "dc1");
  const backup = join(folder.path, "backup");
  const given: number[] = [];
  for (let round = 0; round < 4; round++) {
    given.push(indexOf(await newNode(controller, (await makeToken(controller, { site: "dc1" })).secret, `node-${round}`)));
    await saveBackup(controller, backup);
    await controller.close();
    controller = await startRestored(folder.path, backup, { recoveryQuietMs: 600_000 });
    await call(controller, "POST", "/v1/recovery/confirm", {});
  }
  expect(new Set(given).size).toBe(4);
  await controller.close();
  folder.remove();
});

test("what a dead node may hold is not given again at once when a recovery ends by itself", async () => {
  const folder = temporaryFolder();
  const { controller: first, secret } = await startWithSite(folder.path);
  const here = await newNode(first, secret, "here");
  await saveBackup(first, join(folder.path, "backup"));
  // Nobody hears of the other one: who holds it would keep the recovery open.
  await here.disconnect();
  const unheard = await newNode(first, secret, "unheard");
  await first.close();
  const second = await startRestored(folder.path, join(folder.path, "backup"), { recoveryQuietMs: 0 });
  await eventually(async () => {
    await reconnect(second, [here]);
    expect(await status(second)).toMatchObject({ recovering: false });
  }, 15_000);
  const fresh = await newNode(second, (await makeToken(second, { site: "dc1" })).secret, "fresh");
  expect(indexOf(fresh)).not.toBe(indexOf(unheard));
  await second.close();
  folder.remove();
});

test("an intent that was made after the backup keeps the recovery open until an admin confirms", async () => {
  const folder = temporaryFolder();
  const { controller: first, secret } = await startWithSite(folder.path);
  const agent = await newNode(first, secret, "agent");
  await saveBackup(first, join(folder.path, "backup"));
  const route = {
    apiVersion: "networking.digitalocean.com/v1",
    kind: "StaticRoute",
    metadata: { name: "late" },
    spec: { destinations: ["192.0.2.1"], gateway: "10.0.0.1" },
  };
  await call(first, "POST", "/v1/apply", { documents: [route] });
  await eventually(() => expect(agent.view("staticroute/late")?.size).toBe(2));
  await first.close();
  const second = await startRestored(folder.path, join(folder.path, "backup"), { recoveryQuietMs: 0 });
  await agent.connect(second);
  await eventually(async () =>
    expect(await status(second)).toMatchObject({ recovering: true, missing: [], surplus: { agent: ["staticroute/late"] } }),
  );
  expect(agent.view("staticroute/late")?.size).toBe(2);
  await call(second, "POST", "/v1/recovery/confirm", {});
  await eventually(() => expect(agent.connected).toBe(false));
  await agent.connect(second);
  expect(agent.view("staticroute/late")).toBeUndefined();
  await second.close();
  folder.remove();
});

describe("the SQLite file copied to a second controller", () => {
  test("puts that controller into Recovery from its start, and no peer is lost when an agent calls that saw more", async () => {
    const folder = temporaryFolder();
    const copy = temporaryFolder();
    const { controller: first, secret } = await startWithSite(folder.path);
    const agent = await newNode(first, secret, "agent");
    await first.close();
    cpSync(join(folder.path, "data"), join(copy.path, "data"), { recursive: true });
    for (const folder of ["data", "data/pki"]) chmodSync(join(copy.path, folder), 0o700);
    const again = await startController(folder.path);
    await agent.connect(again);
    const peer = await newNode(again, secret, "peer");
    await eventually(() => expect(agent.view("mesh")?.has("peer/peer")).toBe(true));
    await again.close();

    const second = await startController(copy.path, { recoveryQuietMs: 600_000 });
    expect(await status(second)).toMatchObject({ recovering: true, position: { epoch: 2 } });
    await agent.connect(second);
    await eventually(() => expect(agent.messages.findLast((message) => message.t === "hello")).toMatchObject({ recovering: true }));
    expect(agent.view("mesh")?.has("peer/peer")).toBe(true);
    await peer.connect(second);
    await eventually(async () => expect(await call(second, "GET", "/v1/resources/meshnodes/peer")).toMatchObject({ spec: { index: 2 } }));
    await second.close();
    folder.remove();
    copy.remove();
  });

  test("while the original goes on, and agents reach both: no peer is lost, no address is given twice, and both say what is wrong", async () => {
    const folder = temporaryFolder();
    const copy = temporaryFolder();
    const { controller: first, secret } = await startWithSite(folder.path, { recoveryQuietMs: 600_000 });
    const [one, two] = [await newNode(first, secret, "one"), await newNode(first, secret, "two")];
    cpSync(join(folder.path, "data"), join(copy.path, "data"), { recursive: true });
    for (const name of ["data", "data/pki"]) chmodSync(join(copy.path, name), 0o700);
    const second = await startController(copy.path, { recoveryQuietMs: 300 });
    const events = async (controller: RunningController): Promise<string[]> =>
      (await call<{ items: { reason: string; message: string }[] }>(controller, "GET", "/v1/events?about=controller")).items
        .filter(({ reason }) => reason === "Recovery")
        .map(({ message }) => message);

    // The original is as it was, and its agents stay; the copy gives nothing out.
    expect([await status(first), await status(second)]).toMatchObject([{ recovering: false }, { recovering: true }]);
    expect(await events(second)).toEqual([expect.stringContaining("copy of another controller")]);
    expect([one.connected, two.connected]).toEqual([true, true]);
    await expect(makeToken(second, { site: "dc1" })).rejects.toMatchObject({ code: "Recovering" });
    await expect(joinMachine(second, await makeMachine("stranger"), secret)).rejects.toMatchObject({ code: "Recovering" });
    const seen = await newNode(first, secret, "seen");
    await eventually(() => expect(one.view("mesh")?.has("peer/seen")).toBe(true));

    // An agent that goes over keeps what it knows, and the original's word counts when it comes back.
    await one.connect(second);
    expect(one.view("mesh")?.has("peer/seen")).toBe(true);
    await one.connect(first);
    expect(await status(first)).toMatchObject({ recovering: false });
    expect(one.view("mesh")?.has("peer/seen")).toBe(true);

    // All go over: the copy takes back who joined since, and gives addresses that the original cannot have given.
    await Promise.all([one, two, seen].map((agent) => agent.disconnect()));
    const unseen = await newNode(first, secret, "unseen");
    await eventually(async () => {
      await reconnect(second, [one, two, seen]);
      expect(await status(second)).toMatchObject({ recovering: false });
    }, 15_000);
    const fresh = await newNode(second, (await makeToken(second, { site: "dc1" })).secret, "fresh");
    const given = [one, two, seen, unseen, fresh].map(indexOf);
    expect(new Set(given).size).toBe(given.length);
    await eventually(() => expect(fresh.view("mesh")?.has("peer/seen")).toBe(true));

    await eventually(async () => {
      await reconnect(second, [one]);
      expect(one.holdings).toMatchObject({ guarded: false, seen: { epoch: 2 } });
    });

    // The original hears of it from the first one that comes back, and gives nothing out any more.
    await one.connect(first);
    await eventually(async () => expect(await status(first)).toMatchObject({ recovering: true }));
    expect(await events(first)).toEqual([expect.stringContaining("node one has seen a newer state")]);
    await expect(makeToken(first, { site: "dc1" })).rejects.toMatchObject({ code: "Recovering" });
    for (const peer of ["two", "seen"]) expect(one.view("mesh")?.has(`peer/${peer}`)).toBe(true);
    await Promise.all([first.close(), second.close()]);
    folder.remove();
    copy.remove();
  });
});

test("a lost store with its certificates kept is recovered from once, not at every call, and its agents follow the new one", async () => {
  const folder = temporaryFolder();
  const { controller: first, secret } = await startWithSite(folder.path);
  const [here, late] = await Promise.all(["here", "late"].map((name) => newNode(first, secret, name)));
  if (here === undefined || late === undefined) throw new Error("no nodes");
  const { position } = await status(first);
  await first.close();
  for (const suffix of ["", "-wal", "-shm"]) rmSync(join(folder.path, "data", `store.db${suffix}`), { force: true });
  const second = await startController(folder.path, { recoveryQuietMs: 600_000 });
  await here.connect(second);
  await eventually(async () => expect(await status(second)).toMatchObject({ recovering: true }));
  await eventually(() => reconnect(second, [here]));
  expect(here.holdings).toMatchObject({ guarded: true, seen: { lineage: position.lineage } });
  await call(second, "POST", "/v1/recovery/confirm", {});
  await eventually(() => expect(here.connected).toBe(false));
  await here.connect(second);
  const { position: ours, recovering } = await status(second);
  expect(recovering).toBe(false);
  expect(ours.lineage).not.toBe(position.lineage);
  expect(here.holdings).toMatchObject({ guarded: false, seen: { lineage: ours.lineage } });
  await second.close();
  const third = await startController(folder.path);
  await late.connect(third);
  expect(await status(third)).toMatchObject({ recovering: false });
  expect(await call(third, "GET", "/v1/resources/meshnodes/late")).toMatchObject({ spec: { index: indexOf(late) } });
  // The greeting of a node that was just taken back names its views: an empty list would leave it guarded for good.
  expect(late.messages.findLast((message) => message.t === "hello")).toMatchObject({ views: expect.arrayContaining(["mesh", "node/late"]) });
  expect(late.holdings).toMatchObject({ guarded: false, seen: { lineage: ours.lineage } });
  await third.close();
  folder.remove();
});

describe("what one node says it saw", () => {
  async function setUp(): Promise<{ controller: RunningController; agent: TestAgent; secret: string; remove: () => void }> {
    const folder = temporaryFolder();
    const { controller, secret } = await startWithSite(folder.path, { recoveryQuietMs: 600_000 });
    const agent = await newNode(controller, secret, "liar");
    await agent.disconnect();
    return { controller, agent, secret, remove: folder.remove };
  }
  const say = async (controller: RunningController, agent: TestAgent, seen: Partial<Position>): Promise<void> => {
    agent.messages.length = 0;
    agent.holdings = { ...agent.holdings, seen: { ...(await status(controller)).position, ...seen } };
    await agent.connect(controller);
    await agent.disconnect();
  };

  test("and no store of ours can have reached is refused, and leaves the store as it was", async () => {
    const { controller, agent, remove } = await setUp();
    const before = await status(controller);
    for (const seen of [
      { revision: Number.MAX_SAFE_INTEGER },
      { revision: 2 ** 48 },
      { epoch: 5_000 },
      { revision: 2_000_000_000 },
      { lineage: "another", revision: 2_000_000_000 },
      { revision: -1 },
    ]) {
      await say(controller, agent, seen);
      expect(agent.messages).toEqual([expect.objectContaining({ t: "refused", code: "BadRequest" })]);
    }
    expect(await status(controller)).toMatchObject({ recovering: false, position: before.position });
    await say(controller, agent, { revision: 2_000_000_000 });
    expect(agent.messages[0]).toMatchObject({ message: expect.stringMatching(/node liar .*revision 2000000000/) });
    await controller.close();
    remove();
  });

  test("counts only where a controller gave it out: what is made up starts no recovery and is told of", async () => {
    const { controller, agent, remove } = await setUp();
    const before = await status(controller);
    const { seal } = agent.holdings.seen ?? {};
    expect(seal).toMatch(/^[\w-]{22}$/);
    for (const made of [
      { lineage: "another" },
      { lineage: "another", seal: "A".repeat(22) },
      { epoch: before.position.epoch + 1, seal },
      { revision: before.position.revision + 1, seal },
      { revision: before.position.revision + 900_000_000 },
    ]) {
      await say(controller, agent, made);
      // It may go on: it keeps what it holds by its own guard, and harms nobody.
      expect(agent.messages[0]).toMatchObject({ t: "hello", recovering: false });
      expect(agent.holdings.guarded).toBe(true);
    }
    expect(await status(controller)).toMatchObject({ recovering: false, position: before.position });
    const { items } = await call<{ items: { reason: string; count: number }[] }>(controller, "GET", "/v1/events?about=node/liar");
    expect(items).toContainEqual(expect.objectContaining({ reason: "PositionUnproven", count: 5 }));
    await controller.close();
    remove();
  });
});

describe("restore", () => {
  test("refuses a file that is no backup, and keeps a damaged store aside", async () => {
    const folder = temporaryFolder();
    const controller = await startController(folder.path);
    await makeSite(controller, "dc1");
    const backup = join(folder.path, "backup");
    await saveBackup(controller, backup);
    const data = join(folder.path, "data");
    await expect(restoreController({ data, from: backup })).rejects.toMatchObject({ code: "AlreadyRunning" });
    await controller.close();
    const store = readFileSync(join(data, "store.db"));
    store.fill(0x55, 0, 4096);
    writeFileSync(join(data, "store.db"), store);
    await expect(startController(folder.path)).rejects.toMatchObject({ code: "StoreDamaged", remedy: expect.stringContaining("isthmus restore") });
    writeFileSync(join(folder.path, "rubbish"), "rubbish");
    await expect(restoreController({ data, from: join(folder.path, "rubbish") })).rejects.toMatchObject({ code: "BadRequest" });
    await expect(restoreController({ data, from: join(folder.path, "absent") })).rejects.toMatchObject({ code: "NotFound" });
    const restored = await startRestored(folder.path, backup);
    expect(await call(restored, "GET", "/v1/resources/sites/dc1")).toMatchObject({ kind: "Site" });
    await restored.close();
    folder.remove();
  });
});

describe("a restore that does not come to its end", () => {
  async function setUp() {
    const folder = temporaryFolder();
    const controller = await startController(folder.path);
    await makeSite(controller, "dc1");
    const backup = join(folder.path, "backup");
    await saveBackup(controller, backup);
    await makeSite(controller, "dc2");
    await controller.close();
    const data = join(folder.path, "data");
    return { folder, data, backup, root: readFileSync(join(data, "pki/root.crt"), "utf8") };
  }

  test("because something cannot be written leaves the old store and PKI in use, and nothing behind", async () => {
    const { folder, data, backup, root } = await setUp();
    const content = JSON.parse(gunzipSync(readFileSync(backup)).toString("utf8")) as { pki: Record<string, string> };
    // A file where the next one needs a folder fails as late as a disk that runs full.
    content.pki = { ...content.pki, roots: "", "roots/other.crt": "" };
    const broken = join(folder.path, "broken");
    writeFileSync(broken, gzipSync(JSON.stringify(content)));
    const before = readdirSync(data).sort();
    await expect(restoreController({ data, from: broken })).rejects.toThrow(/roots/);
    expect(readdirSync(data).sort()).toEqual(before);
    const again = await startController(folder.path);
    expect(await status(again)).toMatchObject({ recovering: false, position: { epoch: 1 } });
    expect(await call(again, "GET", "/v1/resources/sites/dc2")).toMatchObject({ kind: "Site" });
    expect(readFileSync(join(data, "pki/root.crt"), "utf8")).toBe(root);
    await again.close();
    folder.remove();
  });

  test("because the machine lost power lets no controller make a new network, and can be run again", async () => {
    const { folder, data, backup, root } = await setUp();
    renameSync(join(data, "store.db"), join(data, "store.db.before-restore-2026"));
    renameSync(join(data, "pki"), join(data, "pki.before-restore-2026"));
    await expect(startController(folder.path)).rejects.toMatchObject({
      code: "NotFound",
      message: expect.stringContaining("store.db.before-restore-2026"),
      remedy: expect.stringContaining("isthmus restore"),
    });
    expect(readdirSync(data)).not.toContain("pki");
    const again = await startRestored(folder.path, backup);
    expect(await status(again)).toMatchObject({ recovering: true, position: { epoch: 2 } });
    expect(readFileSync(join(data, "pki/root.crt"), "utf8")).toBe(root);
    await again.close();

    const fresh = temporaryFolder();
    mkdirSync(join(fresh.path, "data/.restore-1"), { recursive: true, mode: 0o700 });
    await expect(startController(fresh.path)).rejects.toMatchObject({ code: "NotFound", message: expect.stringContaining(".restore-1") });
    fresh.remove();
    folder.remove();
  });
});

test("a node that was forgotten comes back with its address, which was given to nobody else (I6), but not to a name that is taken", async () => {
  const folder = temporaryFolder();
  const { controller: first, secret } = await startWithSite(folder.path);
  await saveBackup(first, join(folder.path, "backup"));
  const [forgotten, replaced] = await Promise.all(["forgotten", "replaced"].map((name) => newNode(first, secret, name)));
  if (forgotten === undefined || replaced === undefined) throw new Error("no nodes");
  const index = indexOf(forgotten);
  await first.close();
  const second = await startRestored(folder.path, join(folder.path, "backup"), { recoveryQuietMs: 600_000 });
  await call(second, "POST", "/v1/recovery/confirm", {});
  const token = (await makeToken(second, { site: "dc1" })).secret;
  const newcomer = await newNode(second, token, "newcomer");
  await joinMachine(second, { ...(await makeMachine("other-machine")), name: "replaced" }, token);
  expect(indexOf(newcomer)).toBeGreaterThan(2);
  const { seen } = forgotten.holdings;
  if (seen === undefined) throw new Error("no position");
  // Its certificate alone may be that of a node whose removal was lost with the rest.
  const { seal: _, ...unproven } = seen;
  forgotten.holdings = { ...forgotten.holdings, seen: unproven };
  await forgotten.connect(second);
  expect(forgotten.messages.at(-1)).toMatchObject({ t: "refused", code: "Unauthenticated" });
  forgotten.holdings = { ...forgotten.holdings, seen };
  await forgotten.connect(second);
  await eventually(async () => expect(await call(second, "GET", "/v1/resources/meshnodes/forgotten")).toMatchObject({ spec: { index } }));
  await expect(replaced.connect(second)).rejects.toMatchObject({ code: "Unauthenticated" });
  await second.close();
  folder.remove();
});
