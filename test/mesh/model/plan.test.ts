import { describe, expect, it } from "vitest";
import { betweenSites, byAge, intoSite, PathKind } from "../../../mesh/model/plan.ts";

describe("kinds of paths", () => {
  const kinds = (of: (id: string) => boolean): string[] => PathKind.options.filter((kind) => of(`${kind}/s`));

  it("between sites are those that SiteGateways makes, and into a site lead those to its LANs and its nodes", () => {
    expect(kinds(betweenSites)).toEqual(["site", "via"]);
    expect(kinds(intoSite)).toEqual(["subnet", "site"]);
  });

  it("are told by the whole first word: no other owner of a destination is one", () => {
    for (const id of ["peer/site", "peer/via", "sites/s", "lanroute/via", "egress/site", "site"]) {
      expect([id, betweenSites(id), intoSite(id)]).toEqual([id, false, false]);
    }
  });
});

it("of several who claim a destination the oldest comes first, and of the same age the one whose name does, however they were listed", () => {
  const claim = (id: string, created: number) => ({ id, created });
  const order = [claim("peer/z", -1), claim("egress/b", 1), claim("egress/a", 2), claim("egress/c", 2), claim("route/a", 2)];
  for (const listed of [order, order.toReversed()]) expect([...listed].sort(byAge)).toEqual(order);
  expect(byAge(claim("egress/a", 1), claim("egress/a", 1))).toBe(0);
});
