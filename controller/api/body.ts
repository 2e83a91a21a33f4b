/** Request bodies and queries, parsed at the edge. */
import type { z } from "zod";
import { IsthmusError } from "../../mesh/errors.ts";

/** @throws {IsthmusError} `Invalid` with every fault and its path */
export function parseBody<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(body ?? {});
  if (parsed.success) return parsed.data;
  const faults = parsed.error.issues.map((issue) => ({ path: issue.path.map(String).join("."), message: issue.message }));
  throw new IsthmusError(
    "Invalid",
    `the request is not valid: ${faults.map(({ path, message }) => (path === "" ? message : `${path}: ${message}`)).join("; ")}`,
    { faults },
  );
}
