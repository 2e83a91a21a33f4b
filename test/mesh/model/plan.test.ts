import { describe, expect, it } from "vitest";
import { betweenSites, intoSite, PathKind } from "../../../mesh/model/plan.ts";

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
