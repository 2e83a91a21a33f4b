/** What people write wrong, through the real command line and a real controller with a real store. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RunningController } from "../../controller/main.ts";
import { isthmus, type Ran } from "../cli/run.ts";
import { makeToken, newNode, startController } from "../controller/harness.ts";

let folder: string;
let controller: RunningController;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "ist-bad-"));
  controller = await startController(folder, { advertise: ["198.51.100.10:8443"] });
});
afterAll(async () => {
  await controller.close();
  rmSync(folder, { recursive: true, force: true });
});

const go = (argv: readonly string[], stdin = ""): Promise<Ran> =>
  isthmus(argv, { stdin, env: { ISTHMUS_SOCKET: controller.socket ?? "" }, now: Date.now() });
const apply = (kind: string, spec: string, metadata = "{name: x}", apiVersion = "isthmus.dev/v1alpha1"): Promise<Ran> =>
  go(["apply", "-f", "-"], `apiVersion: ${apiVersion}\nkind: ${kind}\nmetadata: ${metadata}\nspec: ${spec}\n`);
const all = async (): Promise<string> => (await go(["get", "all,sites,tokens", "-o", "name"])).out;
const egress = (cidrs: string): string => `{destinations: [${cidrs}], gateways: [{site: dc1}]}`;

describe("every fault names path, value and what would be right, and nothing is applied", () => {
  test.each([
    [
      "an unknown field",
      "EgressGateway",
      "{destination: [1.2.3.0/24], gateways: [{site: a}]}",
      /spec\.destination: unknown field \(it is \["1\.2\.3\.0\/24"\]\); did you mean "destinations"\?/,
    ],
    [
      "a wrong type",
      "EgressGateway",
      "{destinations: 1.2.3.0/24, gateways: [{site: a}]}",
      /spec\.destinations: must be a list, not a string \(it is "1\.2\.3\.0\/24"\)/,
    ],
    [
      "a bad prefix length",
      "EgressGateway",
      egress("1.2.3.0/33"),
      /spec\.destinations\[0\]: the prefix length must be 0 to 32 \(it is "1\.2\.3\.0\/33"\)/,
    ],
    [
      "host bits",
      "EgressGateway",
      egress("1.2.3.4/24"),
      /spec\.destinations\[0\]: host bits are set; did you mean 1\.2\.3\.0\/24 or 1\.2\.3\.4\/32\?/,
    ],
    ["IPv4 inside IPv6", "EgressGateway", egress('"::ffff:1.2.3.4/128"'), /spec\.destinations\[0\]: IPv4 inside IPv6 is not accepted/],
    ["no address at all", "EgressGateway", egress("banana"), /spec\.destinations\[0\]: must be an IPv4 address.*\(it is "banana"\)/],
    ["a wrong enum", "Site", "{kind: clod}", /spec\.kind: must be one of onprem, cloud \(it is "clod"\); did you mean "cloud"\?/],
    ["a wrong label key", "Site", '{kind: cloud, labels: {"a b": c}}', /spec\.labels\["a b"\]: must be a label key.*\(it is "a b"\)/],
    ["a wrong label value", "Site", '{kind: cloud, labels: {a: "b c"}}', /spec\.labels\.a: must be empty or up to 63.*\(it is "b c"\)/],
    [
      "a label that only the site's kind gives",
      "Site",
      "{kind: cloud, labels: {location: onprem}}",
      /spec\.labels\.location: comes from the node's site/,
    ],
    ["loopback", "EgressGateway", egress("127.0.0.1/32"), /spec\.destinations\[0\]: is inside 127\.0\.0\.0\/8 \(loopback\), which is never routed/],
    ["multicast", "EgressGateway", egress("224.0.0.0/8"), /inside 224\.0\.0\.0\/4 \(multicast\)/],
    ["the overlay", "EgressGateway", egress("10.101.3.0/24"), /spec\.destinations\[0\]: lies inside the overlay's own range/],
    ["the link addresses", "EgressGateway", egress("10.102.0.7/32"), /lies inside the link addresses/],
    ["the controller", "EgressGateway", egress("198.51.100.10/32"), /lies inside the controller 198\.51\.100\.10:8443/],
    [
      "a gateway inside its own destination",
      "MeshRoute",
      "{destinations: [10.116.0.0/20], gateways: [{address: 10.116.0.5}]}",
      /spec\.gateways\[0\]\.address: lies inside its own destination 10\.116\.0\.0\/20.*excludedDestinations/,
    ],
    ["the default route as a LAN", "Site", "{kind: cloud, subnets: [0.0.0.0/0]}", /spec\.subnets\[0\]: is not a LAN; use an EgressGateway/],
    ["an unknown kind", "EgresGateway", "{}", /kind: unknown kind.*did you mean "EgressGateway"\?/],
  ])("%s", async (_, kind, spec, message) => {
    const before = await all();
    const { status, err } = await apply(kind, spec);
    expect([status, err]).toEqual([2, expect.stringMatching(message)]);
    expect(err).toMatch(/nothing was changed/);
    expect(err).toMatch(/^try: /m);
    expect(await all()).toBe(before);
  });

  test.each([
    ["0 uses", ["--uses", "0"], /spec\.uses: must be at least 1 \(it is 0\)/],
    ["an expiry that is past", ["--expires", "2020-01-01T00:00:00Z"], /spec\.expires: is in the past.*\(it is "2020-01-01T00:00:00Z"\)/],
    ["a negative length of time", ["--expires", "-1h"], /"-1h" is not a length of time/],
    ["a wrong label", ["--label", "a b=c"], /spec\.labels\["a b"\]: must be a label key.*\(it is "a b"\)/],
    ["a label that only the site gives", ["--label", "isthmus.dev/site=dc2"], /spec\.labels\["isthmus\.dev\/site"\]: comes from the node's site/],
    ["a label without a value", ["--label", "a"], /write KEY=VALUE/],
  ])("a token with %s", async (_, flags, message) => {
    await go(["create", "site", "dc1", "--kind", "onprem"]);
    const before = await all();
    const { status, err, out } = await go(["create", "token", "--site", "dc1", ...flags]);
    expect([status, err, out]).toEqual([2, expect.stringMatching(message), ""]);
    expect(await all()).toBe(before);
  });

  test("of ten documents in two files, one of them bad, none is applied, and the file and document are named", async () => {
    const site = (i: number, kind = "cloud"): string =>
      `apiVersion: isthmus.dev/v1alpha1\nkind: Site\nmetadata: {name: many-${i}}\nspec: {kind: ${kind}}\n`;
    writeFileSync(join(folder, "a.yaml"), [0, 1, 2, 3, 4].map((i) => site(i)).join("---\n"));
    writeFileSync(join(folder, "b.yaml"), [5, 6, 7, 8, 9].map((i) => site(i, i === 7 ? "clod" : "cloud")).join("---\n"));
    const before = await all();
    const { status, err } = await go(["apply", "-f", join(folder, "a.yaml"), "-f", join(folder, "b.yaml")]);
    expect([status, err]).toEqual([2, expect.stringMatching(/b\.yaml, document 3: spec\.kind: must be one of onprem, cloud/)]);
    expect(await all()).toBe(before);
    writeFileSync(join(folder, "b.yaml"), [5, 6, 7, 8, 9].map((i) => site(i)).join("---\n"));
    expect((await go(["apply", "-f", join(folder, "a.yaml"), "-f", join(folder, "b.yaml")])).status).toBe(0);
    expect(new Set((await all()).match(/many-\d/g)).size).toBe(10);
  });
});

describe("what is accepted, but not all of it takes effect, says so at once and in describe", () => {
  test("a wide destination that covers the controller, an endpoint, the overlay", async () => {
    const { status, err } = await apply("EgressGateway", egress("198.51.0.0/16, 10.0.0.0/8"), "{name: wide}");
    expect(status).toBe(0);
    expect(err).toMatch(/198\.51\.0\.0\/16 covers the controller 198\.51\.100\.10:8443: nodes keep these out of it/);
    expect(err).toMatch(/10\.0\.0\.0\/8 covers the overlay's own range, the link addresses/);
    const described = (await go(["describe", "egress", "wide"])).out;
    expect(described).toMatch(
      /DestinationsAccepted +True.*covers the overlay's own ranges, the controller 198\.51\.100\.10:8443, which stay out of it/,
    );
  });

  test("two sites with one LAN: the older keeps it, the younger is told by whom", async () => {
    await go(["create", "site", "first", "--kind", "onprem", "--subnet", "192.168.88.0/24"]);
    const second = await apply("Site", "{kind: onprem, subnets: [192.168.88.128/25]}", "{name: second}");
    expect([second.status, second.err]).toEqual([
      0,
      expect.stringMatching(/192\.168\.88\.128\/25 overlaps 192\.168\.88\.0\/24 of site first: only the older/),
    ]);
    expect((await go(["describe", "site", "second"])).out).toMatch(
      /Conflict +True +OverlapsSubnet.*192\.168\.88\.128\/25 overlaps 192\.168\.88\.0\/24 of the older site first/,
    );
  });

  test("a node's label that only its site gives is refused, others are taken", async () => {
    await go(["create", "site", "dc1", "--kind", "onprem"]);
    const agent = await newNode(controller, (await makeToken(controller, { site: "dc1" })).secret, "labelled");
    const refused = await go(["label", "node", "labelled", "location=cloud"]);
    expect([refused.status, refused.err]).toEqual([2, expect.stringMatching(/location.*comes from the node's site/)]);
    expect((await go(["label", "node", "labelled", "tier=web"])).status).toBe(0);
    await agent.disconnect();
  });
});
