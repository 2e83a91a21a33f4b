/** What all objects share: names, labels, conditions. Follows the habits of the Kubernetes API conventions. */
import { z } from "zod";
import { Labels, ObjectName } from "./scalars.ts";

export const API_VERSION = "isthmus.dev/v1alpha1";

export const ObjectMeta = z.strictObject({
  name: ObjectName.describe("Unique within the kind."),
  labels: Labels.optional().describe("Selected by -l and by other objects."),
  annotations: z.record(z.string(), z.string().max(4096)).optional().describe("Notes of people and programs; Isthmus does not read them."),
  uid: z.string().max(64).optional().describe("Set by the controller; never reused."),
  generation: z.int().optional().describe("Raised with every change of spec."),
  resourceVersion: z.string().max(32).optional().describe("The store's revision of the last write; send it back to be told of conflicts."),
  creationTimestamp: z.string().max(32).optional().describe("RFC 3339."),
  origin: z.string().max(64).optional().describe("Where the object was made (`api`, or a cluster's name); it is changed only there."),
});
export type ObjectMeta = z.infer<typeof ObjectMeta>;

export const Condition = z.strictObject({
  type: z.string().max(64).describe("What is told, one CamelCase word."),
  status: z.enum(["True", "False", "Unknown"]).describe("Whether it holds."),
  reason: z.string().max(64).describe("One CamelCase word, stable for programs."),
  message: z.string().max(1024).optional().describe("For people."),
  lastTransitionTime: z.string().max(32).optional().describe("When the status last changed, RFC 3339."),
  observedGeneration: z.int().optional().describe("Generation of the object that this is about."),
});
export type Condition = z.infer<typeof Condition>;

/** At most this many failing nodes are named inside one object's status (10,000 nodes in one object break etcd). */
export const MAX_FAILING_NODES = 20;

export const NodeFault = z.strictObject({
  node: z.string().max(63).describe("Name of the node."),
  reason: z.string().max(64).describe("One CamelCase word, stable for programs."),
  message: z.string().max(512).optional().describe("Error text, for people."),
  nextHop: z.string().max(64).optional().describe("Next hop that is installed there, if any."),
});
export type NodeFault = z.infer<typeof NodeFault>;

/** Status that every intent carries. */
export const IntentStatus = z.strictObject({
  observedGeneration: z.int().optional().describe("Generation of the object that this is about."),
  conditions: z.array(Condition).max(16).optional().describe("What holds of the object, each with a reason."),
  nodes: z
    .strictObject({
      total: z.int().describe("Nodes that it concerns."),
      ready: z.int().describe("Nodes where it is in place."),
      failing: z.int().describe("Nodes that report a fault."),
    })
    .optional()
    .describe("Counts."),
  failing: z
    .array(NodeFault)
    .max(MAX_FAILING_NODES)
    .optional()
    .describe("Some of the failing nodes by name; `describe node` shows each node's own results."),
  active: z.array(z.string().max(63)).max(64).optional().describe("Gateways in use by at least one node, most used first."),
});
export type IntentStatus = z.infer<typeof IntentStatus>;
