/** An admin's key and certificate request. The key is made here and goes into the contexts file only (I8). */
import "reflect-metadata";
import { webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";

export interface KeyAndRequest {
  /** PKCS#8, PEM. */
  readonly key: string;
  /** PKCS#10, PEM. */
  readonly csr: string;
}

export async function makeAdminRequest(name: string): Promise<KeyAndRequest> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: `CN=${name}`,
    keys,
    signingAlgorithm: algorithm,
    extensions: [new x509.SubjectAlternativeNameExtension([{ type: "url", value: `isthmus://admin/${name}` }])],
  });
  const key = x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey), "PRIVATE KEY");
  return { key: `${key.trim()}\n`, csr: request.toString("pem") };
}
