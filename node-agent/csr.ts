/** Certificate requests. Apart from the keys so that a running agent loads the X.509 library only when it renews. */
import "reflect-metadata";
import { createPrivateKey, createPublicKey, webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";

/** PKCS#10 request for the TLS key, PEM. The controller takes the name from the join, not from the subject. */
export async function certificateRequest(tlsKey: string, name: string): Promise<string> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const privateKey = await webcrypto.subtle.importKey("pkcs8", createPrivateKey(tlsKey).export({ format: "der", type: "pkcs8" }), algorithm, true, [
    "sign",
  ]);
  const publicKey = await webcrypto.subtle.importKey("spki", createPublicKey(tlsKey).export({ format: "der", type: "spki" }), algorithm, true, [
    "verify",
  ]);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: `CN=${name}`,
    keys: { privateKey, publicKey },
    signingAlgorithm: algorithm,
    extensions: [new x509.SubjectAlternativeNameExtension([{ type: "url", value: `isthmus://node/${name}` }])],
  });
  return request.toString("pem");
}
