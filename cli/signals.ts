/** SIGINT and SIGTERM as an AbortSignal, for commands that end in an orderly way. */
import type { Io } from "./io.ts";

/** Aborts on the first signal; the second one ends the process at once. */
export function processSignal(io: Io): AbortSignal {
  return interruptible(io).signal;
}

/** As `processSignal`, until it is disposed of. */
export function interruptible(io: Io): Disposable & { readonly signal: AbortSignal } {
  const controller = new AbortController();
  const stop = (signal: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(signal === "SIGINT" ? 130 : 143);
    controller.abort(new Error(`stopped by ${signal}`));
  };
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  return {
    signal: AbortSignal.any([controller.signal, io.signal]),
    [Symbol.dispose]: () => void process.off("SIGINT", stop).off("SIGTERM", stop),
  };
}
