/** How the kernel is read, apart from WireGuard: a tunnel's process that hangs holds up nobody else's question. */
import { standBy } from "./exec.ts";

export const read = standBy();
