/**
 * How the kernel is read, apart from WireGuard: a tunnel's process that hangs holds up nobody else's question. One for the process,
 * because a shell of their own for each driver would cost memory and save nothing: nothing of an answer is kept here.
 */
import { standBy } from "./exec.ts";

export const read = standBy();
