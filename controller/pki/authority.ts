/**
 * The controller's certificate authority. Folder `pki/` of the data folder:
 *
 *   root.crt root.key          the root; its key may be kept elsewhere once an intermediate exists
 *   roots/*.crt                further roots that are trusted (rotation: old and new, then new)
 *   intermediate.crt .key      this controller's issuer; issuers/*.crt those before it
 */
import { X509Certificate } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { PublicKey } from "@peculiar/x509";
import { IsthmusError } from "../../mesh/errors.ts";
import { makeFolder, privateFolder, requireMode, writePrivate } from "../files.ts";
import {
  exportKey,
  importKey,
  makeIntermediate,
  makeLeaf,
  makeRoot,
  newKeys,
  parseCertificate,
  spkiHash,
  type Identity,
  type KeyedCertificate,
} from "./certificates.ts";

const DAY = 86_400_000;
export const SERVER_DAYS = 90;
export const NODE_DAYS = 30;
export const ADMIN_DAYS = 365;

export interface ServerCredentials {
  /** Leaf, intermediate and root: a joining node finds the pinned root in it. */
  readonly cert: string;
  readonly key: string;
  readonly expires: number;
}

export interface Authority {
  /** PEM of every trusted root. */
  readonly roots: readonly string[];
  /** SHA-256 of the root's SubjectPublicKeyInfo, hex; stands in tokens. */
  readonly pin: string;
  readonly server: ServerCredentials;
  /** Intermediates that signed certificates in use: this one and those before it. */
  readonly issuers: readonly X509Certificate[];
  /** PEM chain: leaf, intermediate. */
  issue(identity: Identity, publicKey: PublicKey, days: number, membership?: unknown): Promise<string>;
  /** Makes new server credentials for the same key holder; the caller gives them to the listener. */
  renewServer(): Promise<ServerCredentials>;
}

export interface AuthorityOptions {
  readonly folder: string;
  /** Name of this controller. */
  readonly name: string;
  /** Names and addresses under which it is reached. */
  readonly hosts: readonly string[];
  readonly now: () => number;
}

/**
 * Opens the authority, making what is missing and what can be made.
 * @throws {IsthmusError} `FileMode`, or `NotFound` when the root key is needed and is not there
 */
export async function openAuthority(options: AuthorityOptions): Promise<Authority> {
  const { folder, name, now } = options;
  privateFolder(folder);
  const rootCertificate = await ensureRoot(folder, now());
  const issuer = await ensureIntermediate(folder, name, now());
  const rootPem = rootCertificate.toString("pem");
  const roots = [rootPem, ...certificatesIn(join(folder, "roots")).filter((pem) => pem.trim() !== rootPem.trim())];
  const chain = issuer.certificate.toString("pem");
  const makeServer = async (): Promise<ServerCredentials> => {
    const keys = await newKeys();
    const leaf = await makeLeaf(issuer, {
      identity: { role: "controller", name },
      publicKey: keys.publicKey,
      days: SERVER_DAYS,
      now: now(),
      hosts: options.hosts,
    });
    return { cert: [leaf.toString("pem"), chain, rootPem].join("\n"), key: await exportKey(keys.privateKey), expires: leaf.notAfter.getTime() };
  };
  let server = await makeServer();
  return {
    roots,
    pin: spkiHash(rootCertificate.publicKey.rawData),
    issuers: [chain, ...certificatesIn(join(folder, "issuers"))].map((pem) => new X509Certificate(pem)),
    get server() {
      return server;
    },
    async issue(identity, publicKey, days, membership) {
      const leaf = await makeLeaf(issuer, { identity, publicKey, days, now: now(), ...(membership === undefined ? {} : { membership }) });
      return [leaf.toString("pem"), chain].join("\n");
    },
    async renewServer() {
      server = await makeServer();
      return server;
    },
  };
}

async function ensureRoot(folder: string, now: number): Promise<KeyedCertificate["certificate"]> {
  const file = join(folder, "root.crt");
  if (!existsSync(file)) {
    if (existsSync(join(folder, "intermediate.crt")))
      throw new IsthmusError("NotFound", `${file} is missing`, { remedy: "Put the root certificate back; its key may stay away." });
    const root = await makeRoot("isthmus root", now);
    writePrivate(join(folder, "root.key"), await exportKey(root.key));
    writePrivate(file, root.certificate.toString("pem"));
  }
  return parseCertificate(readFileSync(file, "utf8"));
}

async function ensureIntermediate(folder: string, name: string, now: number): Promise<KeyedCertificate> {
  const [certFile, keyFile, rootKeyFile] = ["intermediate.crt", "intermediate.key", "root.key"].map((file) => join(folder, file)) as [
    string,
    string,
    string,
  ];
  for (const file of [keyFile, rootKeyFile]) if (existsSync(file)) requireMode(file, 0o600);
  if (existsSync(certFile) && existsSync(keyFile)) {
    const certificate = parseCertificate(readFileSync(certFile, "utf8"));
    const fresh = certificate.notAfter.getTime() - now > 365 * DAY;
    if (fresh || !existsSync(rootKeyFile)) return { certificate, key: await importKey(readFileSync(keyFile, "utf8")) };
  }
  if (!existsSync(rootKeyFile)) {
    throw new IsthmusError("NotFound", `${rootKeyFile} is needed to make the controller's intermediate certificate`, {
      remedy: "Put the root key there for one start; it can be taken away again afterwards.",
    });
  }
  const root = {
    certificate: parseCertificate(readFileSync(join(folder, "root.crt"), "utf8")),
    key: await importKey(readFileSync(rootKeyFile, "utf8")),
  };
  if (existsSync(certFile)) {
    const old = readFileSync(certFile, "utf8");
    writePrivate(join(folder, "issuers", `${parseCertificate(old).serialNumber}.crt`), old);
  }
  const made = await makeIntermediate(root, `isthmus controller ${name}`, now);
  writePrivate(keyFile, await exportKey(made.key));
  writePrivate(certFile, made.certificate.toString("pem"));
  return made;
}

function certificatesIn(folder: string): string[] {
  makeFolder(folder);
  return readdirSync(folder)
    .filter((file) => file.endsWith(".crt"))
    .sort()
    .map((file) => readFileSync(join(folder, file), "utf8"));
}
