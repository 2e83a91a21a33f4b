import { describe, expect, it } from "vitest";
import { explainSchema } from "../../../mesh/model/explain-schema.ts";
import { KINDS } from "../../../mesh/model/resources.ts";

describe("explain --schema", () => {
  it("tells type, default, values and description of a field", () => {
    expect(explainSchema("egressgateway.spec.failback.type")).toBe(
      [
        "KIND:     EgressGateway",
        "VERSION:  isthmus.dev/v1alpha1",
        "",
        "FIELD:    type <string>",
        "",
        "DESCRIPTION:",
        "    When a better gateway that is healthy again is used: at once, after the",
        "    delay, or only when the current one fails.",
        "",
        "    Default: Delayed",
        "    One of: Immediate, Delayed, Manual",
        "",
      ].join("\n"),
    );
  });

  it("goes into lists and marks what is required", () => {
    const text = explainSchema("route.spec");
    expect(text).toContain("destinations\t<[]string> -required-");
    expect(text).toContain("table\t<integer>");
    expect(explainSchema("meshroute.spec.gateways.address")).toContain("FIELD:    address <string>");
    expect(explainSchema("site.spec.labels")).toContain("<map[string]string>");
  });

  it("shows all levels with recursive", () => {
    const text = explainSchema("egress", { recursive: true });
    expect(text).toMatch(/^ {2}spec\t<object> -required-\n {4}destinations/m);
    expect(text).toMatch(/^ {10}port\t<integer>/m);
  });

  it("lists the kinds for nothing", () => {
    for (const kind of Object.keys(KINDS)) expect(explainSchema("")).toContain(kind);
  });

  it.each([
    ["egresgateway", /did you mean egressgateway/],
    ["egress.spec.gatways", /did you mean "gateways"/],
    ["egress.spec.snat.type.x", /has no field "x"/],
    ["egress.spec.constructor", /has no field "constructor"/],
  ])("says what was meant by %j", (path, message) => {
    expect(() => explainSchema(path)).toThrow(message);
  });
});
