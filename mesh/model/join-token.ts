/** A token that lets machines join. Only the hash of its secret is stored; the secret is shown once. */
import { z } from "zod";
import { Cidr, Labels, ObjectName } from "./scalars.ts";

export const JoinTokenSpec = z.strictObject({
  site: ObjectName.describe("Site of the machines that join."),
  uses: z.int().min(1).max(1_000_000).default(1).describe("How many machines may join with it."),
  expires: z.string().max(32).describe("Time after which nobody joins with it, RFC 3339."),
  labels: Labels.optional().describe("Given to every node that joins with it."),
  namePattern: z
    .string()
    .max(63)
    .regex(/^[a-z0-9*-]+$/, "must be a node name with '*' for any characters")
    .optional()
    .describe("Names that may join; `*` stands for any characters."),
  grants: z
    .strictObject({ advertise: z.array(Cidr).max(256).optional().describe("Machines may advertise prefixes inside these.") })
    .optional()
    .describe("What machines that join may claim beyond their own addresses."),
});
export type JoinTokenSpec = z.infer<typeof JoinTokenSpec>;

export const JoinTokenStatus = z.strictObject({
  used: z.int().describe("How often it was redeemed."),
  revoked: z.boolean().optional().describe("Nobody joins with it any more."),
  epoch: z.int().describe("The store's epoch when it was made; tokens of an older epoch are void."),
  state: z
    .enum(["Active", "Revoked", "Void", "Expired", "Spent", "SiteDeleted"])
    .optional()
    .describe("Whether somebody can join with it now, or else why not. Void: it was made before the controller was restored."),
});
export type JoinTokenStatus = z.infer<typeof JoinTokenStatus>;
