/** A token that lets machines join. Only the hash of its secret is stored; the secret is shown once. */
import { z } from "zod";
import { Cidr, Labels, ObjectName } from "./scalars.ts";

export const JoinTokenSpec = z.strictObject({
  site: ObjectName,
  uses: z.int().min(1).max(1_000_000).default(1),
  expires: z.string().max(32).describe("RFC 3339."),
  labels: Labels.optional().describe("Given to every node that joins with it."),
  namePattern: z.string().max(63).regex(/^[a-z0-9*-]+$/, "must be a node name with '*' for any characters").optional(),
  grants: z.strictObject({ advertise: z.array(Cidr).max(256).optional() }).optional(),
});
export type JoinTokenSpec = z.infer<typeof JoinTokenSpec>;

export const JoinTokenStatus = z.strictObject({
  used: z.int(),
  revoked: z.boolean().optional(),
  epoch: z.int().describe("The store's epoch when it was made; tokens of an older epoch are void."),
});
export type JoinTokenStatus = z.infer<typeof JoinTokenStatus>;
