import { join } from "node:path";
import { connect, type TLSSocket } from "node:tls";
import { expect, test } from "vitest";
import { createListeners, listenTcp } from "../../controller/api/http.ts";
import { openAuthority } from "../../controller/pki/authority.ts";
import type { Mirror } from "../../controller/reconcile/mirror.ts";
import { renewServer } from "../../controller/timers.ts";
import { temporaryFolder } from "./harness.ts";

const DAY = 86_400_000;

/** One connection, long enough to be given tickets, if there are any. */
function visit(port: number, session?: Buffer): Promise<{ reused: boolean; session: Buffer | undefined; protocol: string | null; serial: string }> {
  return new Promise((resolve, reject) => {
    let ticket: Buffer | undefined;
    const socket: TLSSocket = connect({ host: "127.0.0.1", port, rejectUnauthorized: false, ...(session === undefined ? {} : { session }) });
    socket.on("error", reject);
    socket.on("session", (given: Buffer) => (ticket = given));
    // Tickets come before the answer to the first request.
    socket.on("secureConnect", () => socket.write("GET /healthz HTTP/1.1\r\nhost: c\r\n\r\n"));
    socket.on("data", () => {
      const seen = { reused: socket.isSessionReused(), protocol: socket.getProtocol(), serial: socket.getPeerCertificate().serialNumber };
      socket.destroy();
      resolve({ ...seen, session: ticket });
    });
  });
}

test("a renewed certificate takes effect at once, and still no session is resumed", async () => {
  const folder = temporaryFolder();
  let now = Date.now();
  const authority = await openAuthority({ folder: join(folder.path, "pki"), name: "c", hosts: ["127.0.0.1"], now: () => now });
  const { app, https } = createListeners({
    ...authority.server,
    roots: authority.roots,
    issuers: authority.issuers,
    mirror: () => ({}) as Mirror,
    now: () => now,
    monotonic: () => 0,
    log: () => {},
  });
  app.get("/healthz", () => "ok");
  await app.ready();
  const port = await listenTcp(https, "127.0.0.1", 0);
  const before = await visit(port);
  await renewServer(authority, https, now + 10 * DAY);
  expect((await visit(port)).serial).toBe(before.serial);
  now += 70 * DAY;
  await renewServer(authority, https, now);
  const first = await visit(port);
  const second = await visit(port, first.session);
  expect(first.serial).not.toBe(before.serial);
  expect(second).toMatchObject({ reused: false, protocol: "TLSv1.3", serial: first.serial });
  // The clock had been ahead: what was made by it would not be valid for a long time yet.
  now -= 70 * DAY;
  await renewServer(authority, https, now);
  const { serial } = await visit(port);
  expect(serial).not.toBe(first.serial);
  await renewServer(authority, https, now);
  expect((await visit(port)).serial).toBe(serial);
  await app.close();
  https.close();
  folder.remove();
});
