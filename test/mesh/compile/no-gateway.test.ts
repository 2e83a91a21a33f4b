/** What an intent without any gateway says becomes of its traffic: nothing is named that its kind does not have. */
import { expect, it } from "vitest";
import { createCompiler } from "../../../mesh/compile/plan.ts";
import type { CompileInput, IntentCompileStatus } from "../../../mesh/compile/types.ts";
import { fourNodes, input, node, resource, site } from "./fixtures.ts";

const intent = { destinations: ["10.9.0.0/16"] };
const egress = (onNoGateway: string) =>
  fourNodes({ egress: [resource("EgressGateway", "e", { ...intent, gateways: [{ nodeSelector: { role: "nobody" } }], onNoGateway })] });

function said(given: CompileInput, key: string): string | undefined {
  const status: IntentCompileStatus | undefined = createCompiler()(given).intentStatus.get(key);
  return status?.conditions.find(({ reason }) => reason === "NoGateway")?.message;
}

it.each([
  ["Unreachable", "no node is selected as gateway; meanwhile traffic to the destinations is refused as unreachable (onNoGateway: Unreachable)"],
  ["Underlay", "no node is selected as gateway; meanwhile traffic to the destinations leaves by each node's own uplink (onNoGateway: Underlay)"],
])("an EgressGateway with onNoGateway %s says what that means", (onNoGateway, text) => {
  expect(said(egress(onNoGateway), "EgressGateway/e")).toBe(text);
});

it("a MeshRoute has no such field: its traffic is refused", () => {
  const route = resource("MeshRoute", "r", { ...intent, gateways: [{ node: "nope" }] });
  expect(said(fourNodes({ routes: [route] }), "MeshRoute/r")).toBe(
    "there is no node nope; meanwhile traffic to the destinations is refused as unreachable",
  );
});

it("a Site without nodes says who does not reach what", () => {
  const given = input({ sites: [site("a", { subnets: ["10.1.0.0/16"] }), site("b")], nodes: [node("b", "b", 2)] });
  expect(said(given, "Site/a")).toBe("no node is selected as gateway; meanwhile other sites do not reach its subnets");
});
