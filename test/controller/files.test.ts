import { expect, test } from "vitest";
import { syncFolder } from "../../controller/files.ts";

test("a folder of a file system that cannot sync folders is no failure, one that is not there is", () => {
  // fsync(2) says EINVAL there.
  syncFolder("/proc");
  expect(() => syncFolder("/proc/none")).toThrow("ENOENT");
});
