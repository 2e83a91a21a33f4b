import { expect, test } from "vitest";
import type { LinkView } from "../../mesh/elect/types.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import { deadLinks, type Health } from "../../node-agent/elections.ts";

const view = (node: string, verdict: LinkView["verdict"], more: Partial<LinkView> = {}): [NodeName, LinkView] => [
  node as NodeName,
  { node: node as NodeName, verdict, since: 0, gateway: "Serving", srttMs: 10, ...more },
];
const dead = (stalled: boolean, ...views: [NodeName, LinkView][]): string[] => {
  const health: Health = { links: new Map(views), stalled, lan: new Map() };
  return [...deadLinks(new Map(views.map(([node], i) => [node, i + 1])), health)];
};

test("flows leave a link that is down while another is not; a standstill of this node sends them nowhere else", () => {
  expect(dead(false, view("a", "Down"), view("b", "Up"))).toEqual(["a"]);
  expect(dead(true, view("a", "Down"), view("b", "Up"))).toEqual(["a"]);
  expect(dead(false, view("a", "Down", { holdDownUntil: 5_000 }), view("b", "Up"))).toEqual([]);
});

test("where all links are down, flows stay where they are", () => {
  expect(dead(false, view("a", "Down"), view("b", "Down"))).toEqual([]);
});
