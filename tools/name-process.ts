/** Runs before every file of tests: says which process this is, so that what it leaves behind is known as its own. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { PROCESSES } from "./leftovers.ts";

const folder = process.env[PROCESSES];
if (folder !== undefined) writeFileSync(join(folder, String(process.pid)), "");
