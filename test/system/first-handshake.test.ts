/** `Ready` is true: who is ready has sessions with everybody that can be reached, and nothing that is sent then is lost. Needs root. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { removeLab } from "../../lab/build.ts";
import type { Lab } from "../../lab/lab.ts";
import { REPOSITORY } from "../../lab/names.ts";
import { eventually } from "../../lab/shell.ts";
import { loadTopology } from "../../lab/topology-file.ts";
import { labUp } from "../../lab/up.ts";
import { forgetGuest, GUEST, isthmus, json, nodes, ready, startGuest, stopGuest, token } from "./guest.ts";

const NAME = `h-${process.pid}-f`;
const OWN = ["datacenter1", "datacenter2", "do1", "do2"];
let lab: Lab;

beforeAll(async () => {
  lab = await labUp({ name: NAME, topology: await loadTopology(`${REPOSITORY}/lab/topology/default.yaml`), join: true });
}, 120_000);
afterAll(() => removeLab(NAME));

/** One packet, one second: what a session that is still to be made would lose, or hold up. */
const lostFirst = async (from: string, to: string): Promise<string[]> => {
  const { code } = await lab.exec(from, ["ping", "-c1", "-W1", `${to}.isthmus`], { mayFail: true });
  return code === 0 ? [] : [`${from} → ${to}`];
};

const told = (reason: string, node: string): Promise<true> =>
  eventually(`the event ${reason} of ${node}`, 20_000, async () => {
    const { items } = await json<{ items: { reason: string; about: string }[] }>(lab, "events");
    return items.some((event) => event.reason === reason && event.about === `node/${node}`) ? true : undefined;
  });

describe("first handshakes", () => {
  test("of all pairs are over when the nodes are Ready, and each says so", async () => {
    const pairs = OWN.flatMap((from) => OWN.filter((to) => to !== from).map((to) => [from, to] as const));
    expect((await Promise.all(pairs.map(([from, to]) => lostFirst(from, to)))).flat()).toEqual([]);
    await eventually("every node counts its handshakes", 20_000, async () => {
      const { stdout } = await isthmus(lab, ["get", "nodes", "-o", "wide"]);
      return stdout.match(/ 3\/3 +Ready/g)?.length === OWN.length ? true : undefined;
    });
  });

  test("of a newcomer behind NAT are over when it is Ready, and events tell when that was, and when it went", async () => {
    for (let i = 1; i <= 3; i++) {
      const name = `guest${i}`;
      await startGuest(lab, [await token(lab, "dc1"), "--name", name]);
      await ready(lab, [...OWN, name]);
      const stream = await lab.startGapStream({ from: GUEST, to: "do1", intervalMs: 20 });
      expect((await Promise.all(OWN.map((to) => lostFirst(GUEST, to)))).flat()).toEqual([]);
      expect((await stream.stop()).lost).toBe(0);
      const { status } = (await nodes(lab)).find(({ metadata }) => metadata.name === name) ?? {};
      expect(status?.conditions?.find(({ type }) => type === "Starting")).toBeUndefined();
      await told("NodeReady", name);
      await stopGuest(lab);
      await told("NodeNotReady", name);
      await forgetGuest(lab, name);
    }
  });
});
