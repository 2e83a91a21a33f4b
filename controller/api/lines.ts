/** Answers without an end: one JSON value per line. */
import type { ServerResponse } from "node:http";

/** An empty line now and then tells a reader and every proxy on the way that the stream lives. */
const HEARTBEAT_MS = 15_000;
const MAX_BUFFERED = 16 * 1024 * 1024;

/** Every open stream, so that a closing controller can end them. */
const open = new Set<ServerResponse>();

/** `start` gets the writer and returns what is done at the end. */
export function streamLines(raw: ServerResponse, start: (write: (value: unknown) => void) => () => void): void {
  raw.writeHead(200, { "content-type": "application/x-ndjson", "cache-control": "no-store" });
  raw.flushHeaders();
  open.add(raw);
  const put = (text: string): void => {
    if (raw.writableLength > MAX_BUFFERED) raw.destroy();
    else raw.write(text);
  };
  const stop = start((value) => put(`${JSON.stringify(value)}\n`));
  const beat = setInterval(() => put("\n"), HEARTBEAT_MS);
  raw.on("close", () => {
    open.delete(raw);
    clearInterval(beat);
    stop();
  });
}

export function endStreams(): void {
  for (const raw of open) raw.end();
}
