import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compile, createCompiler } from "../../../mesh/compile/plan.ts";
import type { ClientPlan } from "../../../mesh/model/plan.ts";
import { entry, input, keysOf, node, site } from "./fixtures.ts";

const snat = fc.constantFrom("None", "Masquerade");
/** Up to four sites, each with subnets or not, and up to three nodes. */
const world = fc
  .uniqueArray(fc.record({ n: fc.integer({ min: 1, max: 5 }), snat, lan: fc.boolean(), nodes: fc.integer({ min: 0, max: 3 }) }), {
    selector: ({ n }) => n,
    maxLength: 4,
  })
  .map((sites) => ({
    sites,
    input: input({
      sites: sites.map(({ n, snat, lan }) => site(`s${n}`, { snat, subnets: lan ? [`172.20.${n}.0/24`] : [] })),
      nodes: sites.flatMap(({ n, nodes }) => Array.from({ length: nodes }, (_, i) => node(`s${n}-${i}`, `s${n}`, n * 4 + i))),
    }),
  }));

describe("pairwise links", () => {
  it("join each gateway of a LAN with each gateway of another, where one of the two keeps its addresses, and both ends know", () => {
    fc.assert(
      fc.property(world, ({ sites, input: one }) => {
        const out = compile(one);
        const siteOf = new Map(one.nodes.map(({ metadata, spec }) => [metadata.name as string, sites.find(({ n }) => `s${n}` === spec.site)!]));
        for (const [name, mine] of siteOf) {
          for (const key of keysOf(out.views.get(`node/${name}`)).filter((key) => key.startsWith("client/"))) {
            const other = key.slice("client/".length);
            const theirs = siteOf.get(other)!;
            const wanted = mine.lan && theirs.lan && (mine.snat === "None" || theirs.snat === "None");
            expect((entry(out, `node/${name}`, key) as ClientPlan).pair).toBe(wanted ? 1 : undefined);
            if (wanted) expect((entry(out, `node/${other}`, `client/${name}`) as ClientPlan).pair).toBe(1);
          }
        }
      }),
    );
  });

  it("come and go with the intent in a compiler that remembers, which says what one without memory says", () => {
    const run = createCompiler();
    fc.assert(
      fc.property(world, ({ input: one }) => {
        expect([...run(one).views].map(([id, view]) => [id, [...view]])).toEqual([...compile(one).views].map(([id, view]) => [id, [...view]]));
      }),
    );
  });

  it("are told the port of the other end", () => {
    const sites = [site("s", { subnets: ["172.20.1.0/24"], snat: "None" }), site("t", { subnets: ["172.20.2.0/24"] })];
    const base = input({ sites, nodes: [node("a", "s", 1), node("b", "t", 2)] });
    const facts = { endpoints: [], manualEndpoints: [], advertise: [], links: { b: 51_833 } };
    const out = compile({ ...base, facts: new Map([["a" as never, facts as never]]) });
    expect(entry(out, "node/b", "client/a")).toEqual({ paths: ["subnet/t"], pair: 1, port: 51_833 });
    expect(entry(out, "node/a", "client/b")).toEqual({ paths: ["subnet/s"], pair: 1 });
  });
});
