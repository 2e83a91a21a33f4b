/**
 * Connections to a controller: TLS 1.3, the peer's chain verified here, before a byte of ours is sent. Names are not
 * compared (a controller is reached by many addresses); what counts is the role in its certificate and a root that we hold.
 */
import { X509Certificate } from "node:crypto";
import { request } from "node:http";
import { connect as tlsConnect, type DetailedPeerCertificate, type TLSSocket } from "node:tls";
import { errorFromBody, IsthmusError } from "../mesh/errors.ts";
import { jsonOf } from "../mesh/model/wire.ts";
import { codeOf } from "./files.ts";
import { spkiHash } from "./keys.ts";

const CONNECT_MS = 5_000;
const ANSWER_MS = 15_000;
/** How far our clock may be off before a controller's certificate counts as expired: a wrong clock must not cut a node off. */
const CLOCK_SLACK_MS = 7 * 24 * 3_600_000;

/** What is trusted: the pin of a token (no dates: the clock may be wrong at the first start), or the roots of the join. */
export type Trust = { readonly pin: string } | { readonly roots: string; readonly now: number };

export interface Credentials {
  readonly key: string;
  readonly certificate: string;
}

/** Opens a verified connection. @throws Unreachable, Timeout, PinMismatch, Unauthenticated */
export async function openContact(address: string, trust: Trust, credentials: Credentials | undefined, signal: AbortSignal): Promise<TLSSocket> {
  const { host, port } = splitAddress(address);
  signal.throwIfAborted();
  const socket = tlsConnect({
    host,
    port,
    rejectUnauthorized: false,
    minVersion: "TLSv1.3",
    ALPNProtocols: ["http/1.1"],
    ...(credentials === undefined ? {} : { key: credentials.key, cert: credentials.certificate }),
  });
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(CONNECT_MS)]);
  try {
    await new Promise<void>((done, failed) => {
      socket.once("secureConnect", done);
      socket.once("error", failed);
      socket.once("close", () => failed(new Error("connection closed")));
      deadline.addEventListener("abort", () => failed(deadline.reason as Error), { once: true });
    });
    verifyPeer(presentedChain(socket.getPeerCertificate(true)), trust, address);
    socket.setNoDelay(true);
    // Ten unanswered probes, a second apart, follow the idle time: a host that died without a word is noticed in 15 s.
    socket.setKeepAlive(true, 5_000);
    return socket;
  } catch (error) {
    socket.destroy();
    if (error instanceof IsthmusError) throw error;
    signal.throwIfAborted();
    const why = deadline.aborted
      ? `no answer within ${CONNECT_MS / 1000} s`
      : (codeOf(error) ?? (error instanceof Error ? error.message : String(error)));
    throw new IsthmusError("Unreachable", `controller ${address} cannot be reached: ${why}`, {
      remedy: "check the address, the firewall, and that the controller runs",
      cause: error,
    });
  }
}

/** One JSON request over a connection of its own. Errors of the controller come back as they were thrown there. */
export async function postJson(socket: TLSSocket, path: string, body: unknown, signal: AbortSignal): Promise<unknown> {
  const text = JSON.stringify(body);
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]);
  try {
    return await new Promise<unknown>((done, failed) => {
      const call = request(
        {
          method: "POST",
          path,
          host: "controller",
          headers: { "content-type": "application/json", "content-length": Buffer.byteLength(text), connection: "close" },
          createConnection: () => socket,
          signal: deadline,
        },
        (answer) => {
          const parts: Buffer[] = [];
          answer.on("data", (part: Buffer) => parts.push(part));
          answer.on("error", failed);
          answer.on("end", () => {
            const parsed = jsonOf(Buffer.concat(parts).toString("utf8"));
            if (answer.statusCode !== undefined && answer.statusCode < 300 && parsed !== undefined) done(parsed);
            else failed(errorFromBody(parsed));
          });
        },
      );
      call.on("error", failed);
      call.end(text);
    });
  } catch (error) {
    if (error instanceof IsthmusError) throw error;
    signal.throwIfAborted();
    throw new IsthmusError(
      deadline.aborted ? "Timeout" : "Unreachable",
      `the controller did not answer ${path}: ${codeOf(error) ?? "connection lost"}`,
      { cause: error },
    );
  } finally {
    socket.destroy();
  }
}

/** `HOST:PORT`, a v6 address in brackets, or a name. */
export function splitAddress(address: string): { host: string; port: number } {
  const found = /^(?:\[(?<v6>[^\]]+)\]|(?<name>[^:[\]]+)):(?<port>\d{1,5})$/.exec(address)?.groups;
  const port = Number(found?.["port"]);
  if (found === undefined || port < 1 || port > 65_535)
    throw new IsthmusError("Invalid", `${JSON.stringify(address)} is not a controller address`, { remedy: "write HOST:PORT" });
  return { host: found["v6"] ?? found["name"] ?? "", port };
}

/** Whether the chain leads from a controller's certificate to what is trusted. @throws PinMismatch, Unauthenticated */
export function verifyPeer(chain: readonly X509Certificate[], trust: Trust, address: string): void {
  const leaf = chain[0];
  if (leaf === undefined) throw new IsthmusError("Unauthenticated", `${address} presented no certificate`);
  if (!hasRole(leaf, "controller")) {
    throw new IsthmusError(
      "pin" in trust ? "PinMismatch" : "Unauthenticated",
      `${address} is not an Isthmus controller: its certificate names no such role`,
      {
        remedy: "check the address; something else may listen there",
      },
    );
  }
  if ("pin" in trust) {
    if (!anchored(chain, (hash) => hash === trust.pin, chain)) {
      throw new IsthmusError(
        "PinMismatch",
        `${address} is not the controller that the token was made by: its root key does not match the token's pin`,
        {
          remedy: "use a token of this controller, or check that nobody stands between",
        },
      );
    }
    return;
  }
  const roots = splitPem(trust.roots).map((pem) => new X509Certificate(pem));
  const hashes = new Set(roots.map((root) => spkiHash(root.publicKey)));
  if (!anchored(chain, (hash) => hashes.has(hash), roots)) {
    throw new IsthmusError(
      "Unauthenticated",
      `${address} is not a controller of this network: no root that this node trusts signed its certificate`,
      {
        remedy: "join again with a token of the new controller if the network was made anew",
      },
    );
  }
  const { now } = trust;
  if (leaf.validFromDate.getTime() - CLOCK_SLACK_MS > now || leaf.validToDate.getTime() + CLOCK_SLACK_MS < now) {
    throw new IsthmusError(
      "CertificateExpired",
      `the certificate of ${address} is valid from ${leaf.validFrom} to ${leaf.validTo}, and this clock says ${new Date(now).toISOString()}`,
      {
        remedy: "set this node's clock",
      },
    );
  }
}

/** Walks up from the leaf: each certificate signed by the next, every signer a CA, until a trusted key. */
function anchored(chain: readonly X509Certificate[], trusted: (spki: string) => boolean, anchors: readonly X509Certificate[]): boolean {
  let current = chain[0];
  for (let depth = 0; current !== undefined && depth < 8; depth++) {
    const below: X509Certificate = current;
    const signer: X509Certificate | undefined = [...anchors.filter((one) => trusted(spkiHash(one.publicKey))), ...chain].find(
      (one) => one.ca && one.subject === below.issuer && below.verify(one.publicKey),
    );
    if (signer === undefined) return false;
    if (trusted(spkiHash(signer.publicKey))) return true;
    if (signer.fingerprint256 === below.fingerprint256) return false;
    current = signer;
  }
  return false;
}

function hasRole(certificate: X509Certificate, role: string): boolean {
  return (certificate.subjectAltName ?? "").split(/,\s*/).some((name) => name.replaceAll('"', "").startsWith(`URI:isthmus://${role}/`));
}

function presentedChain(peer: DetailedPeerCertificate): X509Certificate[] {
  const chain: X509Certificate[] = [];
  const seen = new Set<string>();
  for (let at: DetailedPeerCertificate | undefined = peer; at?.raw !== undefined && !seen.has(at.fingerprint256); at = at.issuerCertificate) {
    seen.add(at.fingerprint256);
    chain.push(new X509Certificate(at.raw));
  }
  return chain;
}

export function splitPem(text: string): string[] {
  return text.match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g) ?? [];
}
