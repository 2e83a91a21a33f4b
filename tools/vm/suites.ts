/** What `isthmus test kernel` runs, as patterns from the root of the tree. */

/** In the virtual machine: the lab and the drivers on the distribution's own kernel. */
export const IN_MACHINE: readonly string[] = [
  "test/kernel/inside/**/*.test.ts",
  "test/lab/story.test.ts",
  "test/node-agent/drivers/**/*.test.ts",
  "test/node-agent/*nodes*.test.ts",
  "test/system/leaks.test.ts",
];

/** On this machine, with a virtual machine as one node of a lab. */
export const WITH_MACHINE: readonly string[] = ["test/kernel/*.test.ts"];
