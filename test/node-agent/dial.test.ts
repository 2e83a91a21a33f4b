import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { PeerPlan } from "../../mesh/model/plan.ts";
import type { Endpoint } from "../../mesh/model/scalars.ts";
import {
  atPort,
  chooseDial,
  clientCandidates,
  type DialHistory,
  FRESH_MS,
  gatewayCandidates,
  isPatient,
  isPrivate,
  meshCandidates,
  rememberedDial,
  TURN_MS,
} from "../../node-agent/dial.ts";

const ep = (text: string): Endpoint => text as Endpoint;
const A = ep("203.0.113.1:51820");
const B = ep("203.0.113.2:51820");
const C = ep("203.0.113.3:51820");
const LAN = ep("192.168.88.10:51820");
const NEVER = { endpoint: undefined, latestHandshake: 0 };
const NOW = 1_800_000_000_000;
const both = new Set([4, 6] as const);
const peer = (fields: Partial<PeerPlan>): PeerPlan => ({ i: 2, k: "k" as PeerPlan["k"], s: "dc1" as PeerPlan["s"], e: [], ...fields });

describe("which endpoint is dialed", () => {
  test("the first candidate is dialed first, and the next ones take turns while there is no handshake", () => {
    const first = chooseDial([A, B], undefined, NEVER, NOW);
    expect(first).toMatchObject({ endpoint: A, reset: false });
    const still = chooseDial([A, B], first.history, { endpoint: A, latestHandshake: 0 }, NOW + TURN_MS - 1);
    expect(still).toMatchObject({ endpoint: A, reset: false });
    const second = chooseDial([A, B], still.history, { endpoint: A, latestHandshake: 0 }, NOW + TURN_MS);
    expect(second).toMatchObject({ endpoint: B, reset: true });
    expect(chooseDial([A, B], second.history, NEVER, NOW + 2 * TURN_MS).endpoint).toBe(A);
  });

  test("takes longer and longer turns for a peer that stays silent, and quick ones again when it is news or has answered", () => {
    let dial = chooseDial([A, B], undefined, NEVER, NOW);
    let moves = 0;
    let at = NOW;
    for (; at < NOW + 600_000; at += 1_000) {
      const before = dial.endpoint;
      dial = chooseDial([A, B], dial.history, NEVER, at);
      if (dial.endpoint !== before) moves++;
    }
    // A turn every 5 s would be 120 in ten minutes; every 40 s, 15.
    expect(moves).toBeGreaterThan(20);
    expect(moves).toBeLessThan(40);
    expect(isPatient(dial.history)).toBe(true);
    const news = chooseDial([B, C], dial.history, NEVER, at);
    expect(isPatient(news.history)).toBe(false);
    const answered = chooseDial([A, B], dial.history, { endpoint: A, latestHandshake: at }, at);
    expect(isPatient(answered.history)).toBe(false);
  });

  test("a proven endpoint is kept, also when the peer roamed to one that nobody named", () => {
    const first = chooseDial([A], undefined, NEVER, NOW);
    const roamed = chooseDial([A], first.history, { endpoint: B, latestHandshake: NOW - 1_000 }, NOW + 60_000);
    expect(roamed).toMatchObject({ endpoint: B, reset: false });
    expect(roamed.history.proven).toBe(B);
  });

  test("a peer that moved is followed as soon as the plan names its new address and no longer the old", () => {
    const first = chooseDial([A], undefined, NEVER, NOW);
    const proven = chooseDial([A], first.history, { endpoint: A, latestHandshake: NOW }, NOW + 1_000);
    const moved = chooseDial([B], proven.history, { endpoint: A, latestHandshake: NOW }, NOW + 2_000);
    expect(moved).toMatchObject({ endpoint: B, reset: true });
    const settled = chooseDial([B], moved.history, { endpoint: B, latestHandshake: NOW + 2_100 }, NOW + 3_000);
    expect(settled).toMatchObject({ endpoint: B, reset: false });
  });

  test("when a session is lost, what worked a moment ago has the first turn, however long it worked", () => {
    const first = chooseDial([A, B], undefined, NEVER, NOW);
    const later = NOW + 600_000;
    const proven = chooseDial([A, B], first.history, { endpoint: A, latestHandshake: later - 1_000 }, later);
    const lost = chooseDial([A, B], proven.history, NEVER, later + TURN_MS);
    expect(lost).toMatchObject({ endpoint: A, reset: false });
    expect(chooseDial([A, B], lost.history, NEVER, later + 2 * TURN_MS - 1)).toMatchObject({ endpoint: A, reset: false });
    expect(chooseDial([A, B], lost.history, NEVER, later + 2 * TURN_MS)).toMatchObject({ endpoint: B, reset: true });
  });

  test("an endpoint that was remembered over a reboot is dialed before the plan's, and at once", () => {
    const dial = chooseDial([A], rememberedDial(B, [A], NOW), NEVER, NOW);
    expect(dial).toMatchObject({ endpoint: B, reset: false });
  });

  test("a peer without candidates that was never seen is not dialed and never reset", () => {
    let history: DialHistory | undefined;
    for (let at = NOW; at < NOW + 60_000; at += 1_000) {
      const dial = chooseDial([], history, NEVER, at);
      expect(dial).toMatchObject({ endpoint: undefined, reset: false });
      history = dial.history;
    }
  });

  test("without a handshake every candidate gets its turn, whatever the candidates", () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 250 }), { minLength: 1, maxLength: 6 }), (hosts) => {
        const candidates = hosts.map((host) => ep(`203.0.113.${host}:51820`));
        const tried = new Set<string>();
        let history: DialHistory | undefined;
        for (let turn = 0; turn < candidates.length + 1; turn++) {
          const dial = chooseDial(candidates, history, NEVER, NOW + turn * TURN_MS);
          if (dial.endpoint !== undefined) tried.add(dial.endpoint);
          history = dial.history;
        }
        expect([...tried].toSorted()).toEqual([...candidates].toSorted());
      }),
    );
  });

  test("while handshakes are fresh nothing is ever reset", () => {
    const step = fc.record({ after: fc.integer({ min: 0, max: 60_000 }), age: fc.integer({ min: 0, max: FRESH_MS - 1 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
        let history: DialHistory | undefined;
        let now = NOW;
        for (const { after, age } of steps) {
          now += after;
          const dial = chooseDial([A, B], history, { endpoint: A, latestHandshake: now - age }, now);
          expect(dial).toMatchObject({ endpoint: A, reset: false });
          history = dial.history;
        }
      }),
    );
  });
});

describe("candidates of a peer", () => {
  test("nodes of one site use the LAN first", () => {
    expect(meshCandidates(peer({ e: [A, LAN] }), "dc1", both)).toEqual([LAN, A]);
  });

  test("a peer of another site behind NAT has none: it dials", () => {
    expect(meshCandidates(peer({ e: [A, LAN], n: 1 }), "do1", both)).toEqual([]);
  });

  test("other sites take public addresses first", () => {
    expect(meshCandidates(peer({ e: [LAN, A] }), "do1", both)).toEqual([A, LAN]);
  });

  test("a family that this machine does not have is left out", () => {
    expect(meshCandidates(peer({ e: [ep("[2001:db8::1]:51820"), A] }), "do1", new Set([4]))).toEqual([A]);
  });

  test("links use the hosts of the mesh with their own ports, the proven host first", () => {
    const ports = { mesh: 51820, gateway: 51821, links: 51830, echo: 1, state: 2 };
    expect(gatewayCandidates([A, B], B, ports)).toEqual(["203.0.113.2:51821", "203.0.113.1:51821"]);
    expect(clientCandidates([A], 51831)).toEqual(["203.0.113.1:51831"]);
    expect(clientCandidates([A], undefined)).toEqual([]);
    expect(atPort([ep("[2001:db8::1]:4000")], 51820, 51821)).toEqual(["[2001:db8::1]:4001"]);
  });

  test.each(["10.1.2.3", "192.168.0.1", "172.16.0.1", "172.31.255.1", "100.64.0.1", "fd00::1"])("%s is private", (address) =>
    expect(isPrivate(address)).toBe(true),
  );
  test.each(["172.32.0.1", "100.128.0.1", "8.8.8.8", "2001:db8::1", "11.0.0.1"])("%s is public", (address) => expect(isPrivate(address)).toBe(false));
});
