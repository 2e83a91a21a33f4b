/** Who may be a node, and what becomes of one: lies, copies, removals, roles. Real agents. Needs root. */
import { readFile, rm } from "node:fs/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { removeLab } from "../../lab/build.ts";
import type { Lab } from "../../lab/lab.ts";
import { hostPaths, REPOSITORY } from "../../lab/names.ts";
import { eventually } from "../../lab/shell.ts";
import { loadTopology } from "../../lab/topology-file.ts";
import { labUp } from "../../lab/up.ts";
import { formatJoinToken, parseJoinToken, type JoinTokenText } from "../../mesh/model/token.ts";
import { copyDisk, dataOf, forgetGuest, GUEST, guestLog, isthmus, json, kernelState, nodes, ready, startGuest, stopGuest, token } from "./guest.ts";

const NAME = `h-${process.pid}-i`;
const INTERNET = "34.160.111.145";
const OWN = ["datacenter1", "datacenter2", "do1", "do2"];
let lab: Lab;

beforeAll(async () => {
  lab = await labUp({ name: NAME, topology: await loadTopology(`${REPOSITORY}/lab/topology/default.yaml`), join: true });
}, 120_000);
afterAll(() => removeLab(NAME));
afterEach(async ({ task }) => {
  if (task.result?.state !== "fail") return;
  console.error(await guestLog(lab));
  console.error((await isthmus(lab, ["get", "nodes", "-o", "wide"], { mayFail: true })).stdout);
  // The next test starts from a machine that nobody knows.
  for (const name of ["liar", "guest"]) await forgetGuest(lab, name).catch(console.error);
});

const allowed = async (): Promise<string[]> =>
  Promise.all(OWN.map(async (node) => (await lab.exec(node, ["wg", "show", "all", "allowed-ips"])).stdout.trim().split("\n").sort().join("\n")));
const seenFrom = async (host: string): Promise<string> =>
  (await lab.exec(host, ["curl", "-s", "--max-time", "2", `http://${INTERNET}`], { mayFail: true })).stdout.trim();
const describeNode = async (name: string): Promise<string> => (await isthmus(lab, ["describe", "node", name])).stdout;
const guestStatus = async (): Promise<string> => (await lab.exec(GUEST, ["isthmus", "status"], { mayFail: true })).stdout;
const guestSays = (what: RegExp, withinMs = 20_000): Promise<string> =>
  eventually(`the guest's agent says ${String(what)}`, withinMs, async () => {
    const said = await guestLog(lab);
    return what.test(said) ? said : undefined;
  });

describe("a cloned disk", () => {
  test("starts nothing and is told what to do, and the real one stays", async () => {
    const before = await kernelState(lab, GUEST);
    await copyDisk(lab, "do2");
    await startGuest(lab, []);
    await guestSays(/this machine is not node do2/);
    expect(await kernelState(lab, GUEST)).toBe(before);
    const status = await guestStatus();
    expect(status).toMatch(/MachineChanged/);
    expect(status).toMatch(/isthmus cleanup/);
    expect(status).not.toMatch(/go on without/);
    expect((await isthmus(lab, ["events"])).stdout).toMatch(/CloneDetected +node\/do2/);
    await ready(lab, OWN);
    expect((await lab.exec("do2", ["isthmus", "status"])).stdout).toMatch(/connected to/);
    await stopGuest(lab);
    const cleaned = await lab.exec(GUEST, ["isthmus", "cleanup"]);
    expect(cleaned.stdout).toMatch(/removed keys/);
    // Killed without a goodbye, it had left its socket and its process number there.
    expect((await lab.exec(GUEST, ["ls", "/run/isthmus", "/var/lib/isthmus"], { mayFail: true })).stdout).toBe("");
    expect(await kernelState(lab, GUEST)).toBe(before);
    await ready(lab, OWN);
  });

  test("with its machine-id, as of a whole virtual machine, is refused and told once both run, and the real one stays", async () => {
    const before = await kernelState(lab, GUEST);
    const machineId = async (host: string): Promise<string> => (await lab.exec(host, ["cat", "/etc/machine-id"])).stdout.trim();
    const call = (id: string) => lab.exec(GUEST, ["sh", "-c", `echo ${id} >/etc/machine-id`]);
    const own = await machineId(GUEST);
    await copyDisk(lab, "do2");
    await call(await machineId("do2"));
    try {
      await startGuest(lab, []);
      await guestSays(/this machine is not node do2: another machine with the same identity is connected/);
      expect(await guestStatus()).toMatch(/not connected[^]*another machine with the same identity[^]*isthmus cleanup/);
      expect((await isthmus(lab, ["events"])).stdout).toMatch(/CloneDetected +node\/do2 .*same identity/);
      await eventually("the real one is connected", 20_000, async () =>
        /connected to/.test((await lab.exec("do2", ["isthmus", "status"])).stdout) ? true : undefined,
      );
    } finally {
      await stopGuest(lab);
      await lab.exec(GUEST, ["isthmus", "cleanup"]);
      await call(own);
    }
    expect(await kernelState(lab, GUEST)).toBe(before);
    await ready(lab, OWN);
    await eventually("the real one is reached", 60_000, async () =>
      (await lab.exec("datacenter1", ["ping", "-c1", "-W1", "do2.isthmus"], { mayFail: true })).code === 0 ? true : undefined,
    );
  });
});

describe("an agent that claims too much (I11)", () => {
  test("stays Pending, names the claims and why, and changes nobody's AllowedIPs, endpoints or egress", async () => {
    const before = await allowed();
    const claims = ["0.0.0.0/0", "192.168.88.0/24", "10.101.0.4/32", "172.31.0.0/16", "127.0.0.0/8"].flatMap((cidr) => ["--advertise", cidr]);
    const endpoints = ["203.0.113.10:51820", `${INTERNET}:51820`].flatMap((endpoint) => ["--endpoint", endpoint]);
    await startGuest(lab, [await token(lab, "do2"), "--name", "liar", ...claims, ...endpoints]);
    await ready(lab, [...OWN, "liar"]);
    const said = await describeNode("liar");
    for (const text of [
      "0.0.0.0/0 is everything",
      "10.101.0.4/32 overlaps the overlay",
      "172.31.0.0/16 is not inside spec.advertise",
      "192.168.88.0/24 overlaps a subnet of site dc1",
      "127.0.0.0/8 overlaps loopback",
      "203.0.113.10:51820 is the endpoint of node do1",
    ]) {
      expect(said).toContain(text);
    }
    expect(said).toMatch(/ClaimsGranted +False +Pending/);
    const liar = (await nodes(lab)).find(({ metadata }) => metadata.name === "liar");
    const own = new RegExp(`10\\.10[123]\\.0\\.${liar?.spec.index ?? 0}/32|::${liar?.spec.index ?? 0}/128`);
    const after = await allowed();
    after.forEach((listed, i) => {
      const mine = listed.split("\n").filter((line) => !own.test(line) && !line.includes("0.0.0.0/0"));
      expect(mine).toEqual(before[i]?.split("\n").filter((line) => !line.includes("0.0.0.0/0")));
    });
    // By whichever gateway, but never by its own uplink.
    expect(["203.0.113.10", "198.51.100.66"]).toContain(await seenFrom("datacenter1"));
    expect((await isthmus(lab, ["explain", "datacenter1", INTERNET])).stdout).toMatch(/goes over a gateway link/);
    await forgetGuest(lab, "liar");
    await ready(lab, OWN);
  });

  test("a name that is taken is refused with the way out, and nothing is left behind", async () => {
    await stopGuest(lab);
    const taken = await lab.exec(GUEST, ["isthmus", "join", await token(lab, "dc1"), "--name", "do1"], { mayFail: true });
    expect(taken.code).toBe(4);
    expect(taken.stderr).toMatch(/a node named do1 is already in the network/);
    expect(taken.stderr).toMatch(/--name/);
    await ready(lab, OWN);
    await rm(dataOf(lab, GUEST), { recursive: true, force: true });
  });
});

describe("tokens at the command line", () => {
  test.each([
    ["wrong", (text: string) => `${text.slice(0, -20)}AAAAAAAAAAA${text.slice(-9)}`, /cut short|damaged|checksum/],
    ["cut short", (text: string) => text.slice(0, -12), /cut short|damaged/],
    ["not one", () => "banana", /token/],
  ])("a token that is %s is told apart, before anything is sent", async (_, change, message) => {
    const answer = await lab.exec(GUEST, ["isthmus", "join", change(await token(lab, "dc1")), "--name", "guest"], { mayFail: true });
    expect([answer.code, answer.stderr]).toEqual([2, expect.stringMatching(message)]);
    expect(answer.stderr).toMatch(/^try: /m);
  });

  test.each([
    ["of another controller", (token: JoinTokenText) => ({ ...token, pin: "0".repeat(64) }), /not the controller that the token was made by/],
    ["whose secret is wrong", (token: JoinTokenText) => ({ ...token, secret: "A".repeat(43) }), /does not know the token/],
  ])("a token %s is refused with what to do", async (_, change, message) => {
    const text = formatJoinToken(change(parseJoinToken(await token(lab, "dc1"))));
    const answer = await lab.exec(GUEST, ["isthmus", "join", text, "--name", "guest"], { mayFail: true });
    expect([answer.code, answer.stderr]).toEqual([5, expect.stringMatching(message)]);
    expect(answer.stderr).toMatch(/^try: /m);
  });

  test("an expired, a spent and a revoked one say so and what to do", async () => {
    const short = await token(lab, "dc1", "--expires", "1s");
    const late = await eventually("the token expires", 10_000, async () => {
      const one = await lab.exec(GUEST, ["isthmus", "join", short, "--name", "do1"], { mayFail: true });
      return /expired at/.test(one.stderr) ? one : undefined;
    });
    expect([late.code, late.stderr]).toEqual([5, expect.stringMatching(/create token/)]);
    const once = await token(lab, "dc1", "--uses", "1", "--name-pattern", "gue*");
    const other = (text: string, name: string) =>
      lab.exec(GUEST, ["isthmus", "join", text, "--name", name, "--data", "/var/lib/other", "--run", "/run/other"], { mayFail: true });
    const pattern = await other(once, "other");
    expect([pattern.code, pattern.stderr]).toEqual([5, expect.stringMatching(/for nodes named gue\*, not other/)]);
    await startGuest(lab, [once, "--name", "guest"]);
    await ready(lab, [...OWN, "guest"]);
    const spent = await other(once, "guest2");
    expect([spent.code, spent.stderr]).toEqual([5, expect.stringMatching(/already used 1 of 1 time[^]*create token/)]);
    await forgetGuest(lab, "guest");
    const made = await json<{ object: { metadata: { name: string } }; token: string }>(lab, "create", "token", "--site", "dc1", "--expires", "1h");
    await isthmus(lab, ["token", "revoke", made.object.metadata.name]);
    const answer = await other(made.token, "guest");
    expect([answer.code, answer.stderr]).toEqual([5, expect.stringMatching(/was revoked[^]*create token/)]);
    await ready(lab, OWN);
  });
});

describe("a node that is taken out", () => {
  test("while it was away withdraws when it comes back, with every trace, and foreign things stay (I3)", async () => {
    await lab.exec(GUEST, [
      "sh",
      "-c",
      "ip route add 198.18.0.0/15 via 192.168.88.1 table 300 && ip rule add to 198.18.0.0/15 lookup 300 pref 5000 && nft add table inet theirs && touch /var/lib/theirs",
    ]);
    const before = await kernelState(lab, GUEST);
    await startGuest(lab, [await token(lab, "dc1"), "--name", "guest"]);
    await ready(lab, [...OWN, "guest"]);
    await stopGuest(lab);
    expect((await lab.exec(GUEST, ["ip", "-br", "link"])).stdout).toMatch(/ism0/);
    await isthmus(lab, ["delete", "node", "guest"]);
    await startGuest(lab, []);
    await guestSays(/was removed from network/);
    await eventually("the guest's kernel is as before", 20_000, async () => ((await kernelState(lab, GUEST)) === before ? true : undefined), {
      everyMs: 200,
    });
    await stopGuest(lab);
    expect((await lab.exec(GUEST, ["ls", "-A", "/var/lib/isthmus"], { mayFail: true })).stdout.trim()).toBe("");
    expect(await kernelState(lab, GUEST)).toBe(before);
    await lab.exec(GUEST, ["ls", "/var/lib/theirs"]);
    await ready(lab, OWN);
  });

  test("`leave` does the same with one command, and the controller forgets it; `cleanup` then finds nothing", async () => {
    const before = await kernelState(lab, GUEST);
    await startGuest(lab, [await token(lab, "dc1"), "--name", "guest"]);
    await ready(lab, [...OWN, "guest"]);
    expect((await lab.exec(GUEST, ["isthmus", "leave"])).stdout).toMatch(/node guest left network isthmus/);
    await stopGuest(lab);
    expect(await kernelState(lab, GUEST)).toBe(before);
    expect((await lab.exec(GUEST, ["isthmus", "cleanup"])).stdout).toMatch(/nothing of ours was here/);
    expect((await nodes(lab)).map(({ metadata }) => metadata.name).sort()).toEqual(OWN);
    const again = await lab.exec(GUEST, ["isthmus", "leave"], { mayFail: true });
    expect([again.code, again.stderr]).toEqual([3, expect.stringMatching(/has not joined/)]);
  });

  test("by revoking its certificate is refused with the reason, keeps its last good state, and may come back after a delete", async () => {
    await startGuest(lab, [await token(lab, "dc1"), "--name", "guest"]);
    await ready(lab, [...OWN, "guest"]);
    await isthmus(lab, ["node", "revoke", "guest"]);
    await guestSays(/certificate of (node )?guest was revoked/);
    expect(await guestStatus()).toMatch(/was revoked[^]*isthmus delete node guest/);
    expect((await lab.exec(GUEST, ["ip", "-br", "link"])).stdout).toMatch(/ism0/);
    // Nothing that it says is heard, so each command names a step that works.
    const leaving = await lab.exec(GUEST, ["isthmus", "leave"], { mayFail: true });
    expect([leaving.code, leaving.stderr]).toEqual([5, expect.stringMatching(/was revoked[^]*isthmus cleanup/)]);
    const cleaning = await lab.exec(GUEST, ["isthmus", "cleanup"], { mayFail: true });
    expect([cleaning.code, cleaning.stderr]).toEqual([4, expect.stringMatching(/still runs[^]*kill \d+/)]);
    await isthmus(lab, ["delete", "node", "guest"]);
    await guestSays(/was removed from network/);
    await eventually("the guest's interfaces are gone", 20_000, async () =>
      (await lab.exec(GUEST, ["ip", "-br", "link"])).stdout.includes("ism") ? undefined : true,
    );
    await forgetGuest(lab, "guest");
    await startGuest(lab, [await token(lab, "dc1"), "--name", "guest"]);
    await ready(lab, [...OWN, "guest"]);
    await forgetGuest(lab, "guest");
    await ready(lab, OWN);
  });
});

describe("admins over mTLS", () => {
  const as = async (file: string, ...argv: string[]) => lab.exec(GUEST, ["env", `ISTHMUS_CONFIG=${file}`, "isthmus", ...argv], { mayFail: true });
  const disk = (name: string): string => `${hostPaths(NAME, GUEST).lib}/${name}.yaml`;

  test("a viewer looks, an operator changes intents and lets machines join, an admin makes admins and backups; each refusal says which role it takes", async () => {
    for (const role of ["viewer", "operator", "admin"]) await isthmus(lab, ["create", "admin", `the-${role}`, "--role", role, "--out", disk(role)]);
    const files = Object.fromEntries(["viewer", "operator", "admin"].map((role) => [role, `/var/lib/${role}.yaml`]));
    const site = ["create", "site", "elsewhere", "--kind", "cloud"];
    const asRoot = ["create", "admin", "another", "--role", "admin"];
    expect((await as(files["viewer"] as string, "get", "nodes")).stdout).toMatch(/datacenter1/);
    const refused = await as(files["viewer"] as string, ...site);
    expect([refused.code, refused.stderr]).toEqual([5, expect.stringMatching(/viewer.*operator|operator.*viewer/)]);
    expect((await as(files["operator"] as string, ...site)).code).toBe(0);
    expect((await as(files["operator"] as string, "create", "token", "--site", "do1", "--expires", "1h")).stdout).toMatch(/ist1\./);
    for (const more of [asRoot, ["backup", "/var/lib/stolen"], ["node", "revoke", "do1"]]) {
      const no = await as(files["operator"] as string, ...more);
      expect([no.code, no.stderr]).toEqual([5, expect.stringMatching(/operator.*admin|admin.*operator/)]);
    }
    expect((await as(files["admin"] as string, "backup", "/var/lib/kept")).code).toBe(0);
    await isthmus(lab, ["admin", "revoke", "the-admin"]);
    const out = await as(files["admin"] as string, "get", "nodes");
    expect([out.code, out.stderr]).toEqual([5, expect.stringMatching(/the-admin was revoked/)]);
    await isthmus(lab, ["delete", "site", "elsewhere"]);
  });

  test("the audit log says who did what, before and after, and holds no secret (I8)", async () => {
    const path = `${hostPaths(NAME, "ctl").lib}/isthmus-controller/audit.jsonl`;
    const text = await readFile(path, "utf8");
    const lines = text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    for (const line of lines)
      expect(line).toMatchObject({ at: expect.stringMatching(/^\d{4}-/), who: expect.any(String), action: expect.any(String) });
    expect(lines).toContainEqual(
      expect.objectContaining({ who: "admin/the-operator", action: "create", kind: "Site", name: "elsewhere", after: expect.anything() }),
    );
    expect(lines).toContainEqual(
      expect.objectContaining({ who: "root", action: "delete", kind: "Site", name: "elsewhere", before: expect.anything() }),
    );
    expect(lines).toContainEqual(expect.objectContaining({ action: "create", kind: "JoinToken", who: "admin/the-operator" }));
    expect(lines).toContainEqual(expect.objectContaining({ action: "backup", who: "admin/the-admin" }));
    expect(text).not.toMatch(/ist1\.|PRIVATE KEY/);
  });

  test("status says the controller's version", async () => {
    expect((await as("/var/lib/viewer.yaml", "version")).stdout).toMatch(/controller +\d+\.\d+\.\d+/);
    await Promise.all(["viewer", "operator", "admin"].map((role) => rm(disk(role))));
  });
});
