/** What leaves on one connection: messages in order, a long one piece by piece, each after the one before has left. */
import type { Duplex } from "node:stream";
import type { Frames } from "./frame.ts";

/** An agent that reads slower than this is dropped; it resumes by what changed. */
const MAX_BUFFERED = 8 * 1024 * 1024;

export interface Outbox {
  /** `sent` is called when the message has left, or never will. False: the reader is too slow. */
  write(frames: Frames, sent?: () => void): boolean;
}

interface Waiting {
  readonly frames: Frames;
  readonly sent: (() => void) | undefined;
}

export function createOutbox(socket: Duplex): Outbox {
  let queue: Waiting[] = [];
  let waitingBytes = 0;
  let busy = false;

  function drop(): void {
    const dropped = queue;
    queue = [];
    waitingBytes = 0;
    for (const { sent } of dropped) sent?.();
  }

  function next(): void {
    const one = queue.shift();
    busy = one !== undefined;
    if (one === undefined) return;
    send(one, 0);
  }

  function send({ frames, sent }: Waiting, from: number): void {
    const piece = frames[from];
    if (piece === undefined) {
      sent?.();
      return next();
    }
    socket.write(piece, (failure) => {
      waitingBytes -= piece.length;
      if (failure === undefined || failure === null) return send({ frames, sent }, from + 1);
      sent?.();
      drop();
    });
  }

  return {
    write(frames, sent) {
      if (socket.destroyed || !socket.writable) {
        sent?.();
        return true;
      }
      const [only] = frames;
      // Nearly all messages: one short frame, nothing before it.
      if (!busy && frames.length === 1 && only !== undefined) {
        if (sent === undefined) socket.write(only);
        else socket.write(only, sent);
        return socket.writableLength <= MAX_BUFFERED;
      }
      queue.push({ frames, sent });
      for (const piece of frames) waitingBytes += piece.length;
      if (!busy) next();
      return waitingBytes + socket.writableLength <= MAX_BUFFERED;
    },
  };
}
