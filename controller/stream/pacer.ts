/** Catching up in turn: only so much is on its way at once, so that a thousand agents that return together do not fill the memory. */
import { sizeOf, type Frames } from "./frame.ts";

const MAX_IN_FLIGHT = 4 * 1024 * 1024;
/** Agents that read slowly hold the others up no longer than this. */
const PATIENCE_MS = 1_000;
/** Smaller messages are not counted. */
const SMALL = 4 * 1024;

export interface Pacer<T> {
  /** Queues one; its turn comes with `pump` or when something has left. */
  add(one: T): void;
  pump(): void;
  /** Writes a message that counts as on its way until it has left. */
  write(receiver: { write(message: Frames, sent?: () => void): void }, message: Frames): void;
}

/** `serve` is called with each in its turn. */
export function createPacer<T>(serve: (one: T) => void): Pacer<T> {
  const queue: T[] = [];
  let inFlight = 0;

  function pump(): void {
    for (;;) {
      const next = inFlight < MAX_IN_FLIGHT ? queue.shift() : undefined;
      if (next === undefined) return;
      serve(next);
    }
  }

  return {
    add: (one) => void queue.push(one),
    pump,
    write(receiver, message) {
      const size = sizeOf(message);
      if (size <= SMALL) return receiver.write(message);
      inFlight += size;
      let left = false;
      const leave = (): void => {
        if (left) return;
        left = true;
        clearTimeout(patience);
        inFlight -= size;
        pump();
      };
      // Patience with one who reads slowly keeps no controller from ending.
      const patience = setTimeout(leave, PATIENCE_MS).unref();
      receiver.write(message, leave);
    },
  };
}
