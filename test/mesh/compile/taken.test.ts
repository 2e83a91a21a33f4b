import { expect, it } from "vitest";
import { compile } from "../../../mesh/compile/plan.ts";
import { takenDestinations } from "../../../mesh/compile/taken.ts";
import { fourNodes, resource } from "./fixtures.ts";

const egress = (name: string, age: number, spec: object) =>
  resource("EgressGateway", name, { destinations: ["34.0.0.1"], gateways: [{ site: "fra" }], ...spec }, age);
const via = (age: number, spec: object = {}) =>
  resource("MeshRoute", "via", { destinations: ["34.0.0.1", "34.0.0.2"], gateways: [{ node: "do2" }], ...spec }, age);

function taken(key: "MeshRoute/via" | "EgressGateway/in", ...[old, route]: [ReturnType<typeof egress>, ReturnType<typeof via>]) {
  const out = compile(fourNodes({ egress: [old], routes: [route] }));
  const status = out.intentStatus.get(key);
  return status === undefined ? undefined : takenDestinations(out)(status);
}

it("a destination of an older intent on the same nodes is named with whose it is; the older one loses nothing", () => {
  const both = [egress("in", 1, {}), via(2)] as const;
  expect(taken("MeshRoute/via", ...both)).toEqual([{ destination: "34.0.0.1/32", by: "egress/in" }]);
  expect(taken("EgressGateway/in", ...both)).toEqual([]);
});

it("no intent takes from one on other nodes, or in another table", () => {
  expect(taken("MeshRoute/via", egress("in", 1, { sources: { nodeSelector: { location: "nowhere" } } }), via(2))).toEqual([]);
  expect(taken("MeshRoute/via", egress("in", 1, {}), via(2, { gateways: [{ address: "192.0.2.1" }], table: 100 }))).toEqual([]);
});
