import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Operation } from "../../../mesh/kernel/operations.ts";
import { stepsOf } from "../../../node-agent/drivers/apply.ts";

const OPS = ["nft.replace", "link.add", "peer.add", "address.add", "route.add", "sysctl.set", "link.remove", "hosts.set"] as const;
const operation = (op: (typeof OPS)[number]): Operation => ({ op }) as unknown as Operation;
const kinds = (ops: readonly (typeof OPS)[number][]): string[] => stepsOf(ops.map(operation)).map((step) => step.map(({ kind }) => kind).join("+"));

describe("the steps of an apply", () => {
  it("make the firewall's table and the devices at once, and peers after both", () => {
    expect(kinds(["nft.replace", "link.add", "link.add", "peer.add", "address.add", "route.add", "sysctl.set"])).toEqual([
      "nft+link",
      "peer",
      "ipany",
      "sysctl",
    ]);
  });

  it("never bring a device before a table that comes after it, nor anything else together", () => {
    expect(kinds(["link.add", "nft.replace", "peer.add"])).toEqual(["link", "nft", "peer"]);
    expect(kinds(["nft.replace", "link.remove", "hosts.set"])).toEqual(["nft", "unlink", "hosts"]);
  });

  it("hold every operation once, in order", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...OPS)), (ops) => {
        const all = ops.map(operation);
        expect(stepsOf(all).flatMap((step) => step.flatMap(({ operations }) => operations))).toEqual(all);
      }),
    );
  });
});
