/** X.509 as this project uses it: P-256, SHA-256, one role per leaf in a SAN URI `isthmus://<role>/<name>`. */
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import { createHash, createPublicKey, webcrypto } from "node:crypto";
import { isIP } from "node:net";
import { IsthmusError } from "../../mesh/errors.ts";

type CryptoKey = webcrypto.CryptoKey;
type CryptoKeyPair = webcrypto.CryptoKeyPair;

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const DAY = 86_400_000;
/** Certificates are valid from before they are made, so that a node whose clock is a day behind accepts them. */
const BACKDATE = 2 * DAY;
/**
 * Our own extension: what a node is, in JSON, signed by us. The arc 2.25 needs no registration (ITU-T X.667); the number under
 * it is small because the ASN.1 library drops arcs of 128 bits (tried).
 */
const MEMBERSHIP_OID = "2.25.1574893210";

export type Role = "node" | "admin" | "controller";

export interface Identity {
  readonly role: Role;
  readonly name: string;
}

export interface KeyedCertificate {
  readonly certificate: x509.X509Certificate;
  readonly key: CryptoKey;
}

export interface LeafRequest {
  readonly identity: Identity;
  readonly publicKey: x509.PublicKey | CryptoKey;
  readonly days: number;
  readonly now: number;
  /** DNS names and addresses of a controller. */
  readonly hosts?: readonly string[];
  /** What the store knows of a node, so that a restored store learns it back from a certificate of ours (DESIGN §5). */
  readonly membership?: unknown;
}

export function newKeys(): Promise<CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
}

export async function makeRoot(name: string, now: number): Promise<KeyedCertificate> {
  const keys = await newKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [name] }],
    keys,
    signingAlgorithm: ALGORITHM,
    notBefore: new Date(now - BACKDATE),
    notAfter: new Date(now + 3650 * DAY),
    extensions: [new x509.BasicConstraintsExtension(true, 1, true), keyUsage(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign)],
  });
  return { certificate, key: keys.privateKey };
}

export async function makeIntermediate(root: KeyedCertificate, name: string, now: number): Promise<KeyedCertificate> {
  const keys = await newKeys();
  const certificate = await x509.X509CertificateGenerator.create({
    subject: [{ CN: [name] }],
    issuer: root.certificate.subjectName.toJSON(),
    publicKey: keys.publicKey,
    signingKey: root.key,
    signingAlgorithm: ALGORITHM,
    notBefore: new Date(now - BACKDATE),
    notAfter: new Date(Math.min(now + 1095 * DAY, root.certificate.notAfter.getTime())),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      keyUsage(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign),
      await x509.AuthorityKeyIdentifierExtension.create(root.certificate.publicKey),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate, key: keys.privateKey };
}

export async function makeLeaf(issuer: KeyedCertificate, request: LeafRequest): Promise<x509.X509Certificate> {
  const { identity, now, hosts = [] } = request;
  const names: x509.JsonGeneralNames = [
    { type: "url", value: `isthmus://${identity.role}/${identity.name}` },
    ...hosts.map((host) => ({ type: isIP(host) ? ("ip" as const) : ("dns" as const), value: host })),
  ];
  const usages =
    identity.role === "controller" ? [x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth] : [x509.ExtendedKeyUsage.clientAuth];
  const extensions: x509.Extension[] = [
    new x509.BasicConstraintsExtension(false, undefined, true),
    keyUsage(x509.KeyUsageFlags.digitalSignature),
    new x509.ExtendedKeyUsageExtension(usages),
    new x509.SubjectAlternativeNameExtension(names),
  ];
  if (request.membership !== undefined) {
    extensions.push(new x509.Extension(MEMBERSHIP_OID, false, utf8String(JSON.stringify(request.membership))));
  }
  return x509.X509CertificateGenerator.create({
    subject: [{ CN: [`${identity.role}:${identity.name}`.slice(0, 64)] }],
    issuer: issuer.certificate.subjectName.toJSON(),
    publicKey: request.publicKey,
    signingKey: issuer.key,
    signingAlgorithm: ALGORITHM,
    notBefore: new Date(now - BACKDATE),
    notAfter: new Date(Math.min(now + request.days * DAY, issuer.certificate.notAfter.getTime())),
    extensions,
  });
}

/** A request whose signature proves that the sender holds its key. */
export interface ProvenRequest {
  readonly publicKey: x509.PublicKey;
  /** SHA-256 of the SubjectPublicKeyInfo, hex. */
  readonly keyHash: string;
}

/** @throws {IsthmusError} `BadRequest` */
export async function readRequest(pem: string): Promise<ProvenRequest> {
  try {
    const request = new x509.Pkcs10CertificateRequest(pem);
    const key = createPublicKey({ key: Buffer.from(request.publicKey.rawData), format: "der", type: "spki" });
    if (key.asymmetricKeyType === "ec" && key.asymmetricKeyDetails?.namedCurve === "prime256v1" && (await request.verify())) {
      return { publicKey: request.publicKey, keyHash: spkiHash(request.publicKey.rawData) };
    }
  } catch {
    // Whatever the parser stumbled over, the answer is the same.
  }
  throw new IsthmusError("BadRequest", "csr: not a PKCS#10 request with a P-256 key and a valid signature");
}

export function spkiHash(spki: ArrayBuffer | Uint8Array): string {
  return createHash("sha256")
    .update(spki instanceof Uint8Array ? spki : new Uint8Array(spki))
    .digest("hex");
}

const SAN_URI = /^URI:isthmus:\/\/(node|admin|controller)\/([a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?)$/;

/** The role in a certificate's alternative names (as `node:crypto` prints them), which must hold exactly one of ours. */
export function identityOf(subjectAltName: string | undefined): Identity | undefined {
  const ours = (subjectAltName ?? "").split(", ").filter((name) => name.includes("isthmus:"));
  const found = ours.length === 1 ? SAN_URI.exec(ours[0] ?? "") : null;
  return found === null ? undefined : { role: found[1] as Role, name: found[2] ?? "" };
}

/** What we wrote about a node into its certificate. */
export function membershipOf(der: Uint8Array): unknown {
  const extension = new x509.X509Certificate(new Uint8Array(der)).getExtension(MEMBERSHIP_OID);
  if (extension === null) return undefined;
  const bytes = new Uint8Array(extension.value);
  const header = (bytes[1] ?? 0) < 0x80 ? 2 : 2 + ((bytes[1] ?? 0) & 0x7f);
  return JSON.parse(new TextDecoder().decode(bytes.subarray(header)));
}

export async function exportKey(key: CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY");
}

export function importKey(pem: string): Promise<CryptoKey> {
  return webcrypto.subtle.importKey("pkcs8", x509.PemConverter.decodeFirst(pem), ALGORITHM, true, ["sign"]);
}

export function parseCertificate(pem: string): x509.X509Certificate {
  return new x509.X509Certificate(pem);
}

function keyUsage(flags: x509.KeyUsageFlags): x509.KeyUsagesExtension {
  return new x509.KeyUsagesExtension(flags, true);
}

/** DER UTF8String (X.690 §8.23) of up to 64 KiB. */
function utf8String(text: string): Uint8Array<ArrayBuffer> {
  const content = new TextEncoder().encode(text);
  const { length } = content;
  const header = length < 0x80 ? [0x0c, length] : length < 0x100 ? [0x0c, 0x81, length] : [0x0c, 0x82, length >> 8, length & 0xff];
  return Uint8Array.from([...header, ...content]);
}
