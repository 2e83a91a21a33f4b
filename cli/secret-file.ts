/** Files of the command line that hold keys: mode 0600 from the first byte, whole or not at all, on the disk when it returns. */
import { open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { IsthmusError } from "../mesh/errors.ts";
import { refuseUnlessUnable } from "../mesh/folders.ts";

/** @throws {IsthmusError} DiskFull, or Invalid where the file cannot be written */
export async function writeSecret(path: string, content: string | Uint8Array): Promise<void> {
  const half = `${path}.${process.pid}.new`;
  try {
    // One that is there was left by a process that was killed.
    await rm(half, { force: true });
    {
      await using file = await open(half, "wx", 0o600);
      await file.writeFile(content);
      await file.sync();
    }
    await rename(half, path);
    await using folder = await open(dirname(path), "r");
    await folder.sync().catch(refuseUnlessUnable);
  } catch (error) {
    await rm(half, { force: true }).catch(() => undefined);
    const { code, message } = error as NodeJS.ErrnoException;
    throw new IsthmusError(code === "ENOSPC" || code === "EDQUOT" ? "DiskFull" : "Invalid", `${path} cannot be written: ${message}`, {
      remedy: "Check the directory and the free space.",
      cause: error,
    });
  }
}
