/**
 * WebSocket frames from server to client: unmasked text (RFC 6455 §5.2). Made here and not by `ws`, because one message goes
 * to a thousand sockets: it is encoded once and the same bytes are written to each.
 */

/** Half a TLS record: a connection keeps buffers for its largest write for ever (tried: 15 KiB more for each of 1,000). */
const FRAGMENT = 8 * 1024;

const TEXT = 0x01;
const CONTINUATION = 0x00;
const FIN = 0x80;

/** One message as frames of at most 8 KiB, which control frames of `ws` may stand between (RFC 6455 §5.4). */
export type Frames = readonly Buffer[];

export function textFrames(text: string): Frames {
  const length = Buffer.byteLength(text);
  if (length <= FRAGMENT) {
    const whole = head(FIN | TEXT, length);
    whole.write(text, whole.length - length);
    return [whole];
  }
  const bytes = Buffer.from(text);
  const count = Math.ceil(bytes.length / FRAGMENT);
  return Array.from({ length: count }, (_, i) =>
    frame((i === count - 1 ? FIN : 0) | (i === 0 ? TEXT : CONTINUATION), bytes.subarray(i * FRAGMENT, (i + 1) * FRAGMENT)),
  );
}

export function messageFrames(message: unknown): Frames {
  return textFrames(JSON.stringify(message));
}

/** Bytes of a message on the wire, before TLS. */
export function sizeOf(frames: Frames): number {
  let size = 0;
  for (const one of frames) size += one.length;
  return size;
}

function frame(first: number, payload: Buffer): Buffer {
  const bytes = head(first, payload.length);
  payload.copy(bytes, bytes.length - payload.length);
  return bytes;
}

/** A frame with its header written and room for the payload. */
function head(first: number, length: number): Buffer {
  const header = length < 126 ? 2 : 4;
  const bytes = Buffer.allocUnsafe(header + length);
  bytes[0] = first;
  if (header === 2) bytes[1] = length;
  else {
    bytes[1] = 126;
    bytes.writeUInt16BE(length, 2);
  }
  return bytes;
}
