import { createServer, type Server } from "node:https";
import { mkdtempSync, rmSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { apiPath, type Client, clientFor } from "../../cli/client.ts";
import { makeAdminRequest } from "../../cli/csr.ts";
import { openAuthority, type Authority } from "../../controller/pki/authority.ts";
import { readRequest } from "../../controller/pki/certificates.ts";

let folder: string;
let ours: Authority;
let foreign: Authority;
const servers: Server[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "ist-b-"));
  const hosts = ["controller.example"];
  ours = await openAuthority({ folder: join(folder, "ours"), name: "c", hosts, now: Date.now });
  foreign = await openAuthority({ folder: join(folder, "foreign"), name: "c", hosts, now: Date.now });
});
afterAll(() => {
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
  rmSync(folder, { recursive: true, force: true });
});

async function serve(cert: string, key: string): Promise<Client> {
  const server = createServer(
    { cert, key, ca: [...ours.roots], requestCert: true, rejectUnauthorized: false, minVersion: "TLSv1.3" },
    (request, response) => {
      const { authorized } = request.socket as unknown as { authorized: boolean };
      response.setHeader("content-type", "application/json");
      if (request.url === "/v1/broken") return response.end("<html>");
      if (request.url === "/v1/teapot") return response.writeHead(418).end("short and stout");
      return response.end(JSON.stringify({ authorized, url: request.url }));
    },
  );
  servers.push(server);
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { key: adminKey, csr } = await makeAdminRequest("bob");
  const certificate = await ours.issue({ role: "admin", name: "bob" }, (await readRequest(csr)).publicKey, 1);
  return clientFor({
    name: "x",
    server: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ca: ours.roots.join("\n"),
    cert: certificate,
    key: adminKey,
  });
}

describe("the client over TLS", () => {
  it("takes a controller's certificate under any address, and shows its own", async () => {
    const client = await serve(ours.server.cert, ours.server.key);
    expect(await client.call("GET", apiPath(["resources", "sites"], { labelSelector: "a=b", since: undefined }))).toEqual({
      authorized: true,
      url: "/v1/resources/sites?labelSelector=a%3Db",
    });
  });

  it("refuses a node's certificate of the same root: a node is no controller", async () => {
    const { key, csr } = await makeAdminRequest("evil");
    const client = await serve(await ours.issue({ role: "node", name: "evil" }, (await readRequest(csr)).publicKey, 1), key);
    await expect(client.call("GET", "/v1/status")).rejects.toMatchObject({
      code: "Unauthenticated",
      message: expect.stringContaining("not a controller's") as string,
    });
  });

  it("refuses another root's controller", async () => {
    const client = await serve(foreign.server.cert, foreign.server.key);
    await expect(client.call("GET", "/v1/status")).rejects.toMatchObject({ code: "PinMismatch" });
  });

  it("says when the answer is not ours", async () => {
    const client = await serve(ours.server.cert, ours.server.key);
    await expect(client.call("GET", "/v1/broken")).rejects.toMatchObject({
      code: "Internal",
      message: expect.stringContaining("not JSON") as string,
    });
    await expect(client.call("GET", "/v1/teapot")).rejects.toMatchObject({
      code: "Internal",
      message: expect.stringContaining("HTTP 418") as string,
    });
  });

  it("says when nobody is there", async () => {
    await expect(clientFor({ name: "x", server: "https://127.0.0.1:1", ca: ours.roots[0] }).call("GET", "/v1/status")).rejects.toMatchObject({
      code: "Unreachable",
      exit: 6,
    });
  });
});

describe("an API path", () => {
  it("encodes what users wrote", () => {
    expect(apiPath(["resources", "sites", "a/../b?x"])).toBe("/v1/resources/sites/a%2F..%2Fb%3Fx");
  });
});
