/** A clock of one lab service's own, which can be set while it runs; the machine's clock is nobody's to touch. */
import { rename, writeFile } from "node:fs/promises";
import type { Lab } from "../../lab/lab.ts";
import { hostPaths } from "../../lab/names.ts";

const FOLDER = "/var/lib/lab";
const folderOf = (lab: Lab, host: string): string => `${hostPaths(lab.name, host).lib}/lab`;

/**
 * Loaded by Node before the product. The file is read at each look, so that a step comes between any two of them, as a real one does.
 *
 * Only what JavaScript asks for is shifted. Timers and times since boot stay, as they do in truth. OpenSSL and other programs go by the
 * machine's clock: what WireGuard says of handshakes from before a step is what it would say in truth (the time of then), and one that is
 * made while this clock is off gets a time that is as far off, as if the clock had been set once more since, which is harder to judge. Not
 * seen here is what WireGuard itself does when its clock goes back: its peers refuse first messages that are older than the last one, and
 * begin sessions themselves.
 */
const PRELOAD = `import { readFileSync } from "node:fs";
const Real = Date;
const now = () => Real.now() + Number(readFileSync("${FOLDER}/clock", "utf8"));
globalThis.Date = class extends Real {
  constructor(...given) { if (given.length === 0) super(now()); else super(...given); }
  static now() { return now(); }
};
`;

/** What a service's script has to begin with to go by its own clock, which is so far off. */
export async function ownClock(lab: Lab, host: string, offsetMs: number): Promise<string> {
  await setClock(lab, host, offsetMs);
  await writeFile(`${folderOf(lab, host)}/clock.mjs`, PRELOAD);
  return `export NODE_OPTIONS=--import=${FOLDER}/clock.mjs\n`;
}

/** Sets it, at once and also while the service runs. */
export async function setClock(lab: Lab, host: string, offsetMs: number): Promise<void> {
  const file = `${folderOf(lab, host)}/clock`;
  // Nobody reads half a number.
  await writeFile(`${file}.new`, String(offsetMs));
  await rename(`${file}.new`, file);
}
