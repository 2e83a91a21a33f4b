/** What `isthmus test kernel` runs, as patterns from the root of the tree. */

/** In a virtual machine: the lab and the drivers on the distribution's own kernel. */
export const INSIDE: readonly string[] = [
  "test/kernel/inside/**/*.test.ts",
  "test/lab/story.test.ts",
  "test/node-agent/drivers/**/*.test.ts",
  "test/node-agent/*nodes*.test.ts",
  "test/system/leaks.test.ts",
];

/** On this machine: what a virtual machine as a whole does, reboots among it. */
export const OUTSIDE: readonly string[] = ["test/kernel/*.test.ts"];
