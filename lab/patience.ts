/**
 * Deadlines are for a machine of today. Where everything runs many times slower (a virtual machine whose processor is
 * emulated), ISTHMUS_PATIENCE multiplies those of the lab and of the tests; the product knows nothing of it.
 */
const factor = Math.max(1, Number(process.env["ISTHMUS_PATIENCE"] ?? "1") || 1);

export function patient(ms: number): number {
  return ms * factor;
}
