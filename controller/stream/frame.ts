/**
 * WebSocket frames from server to client: final, unmasked text (RFC 6455 §5.2). Made here and not by `ws`, because one
 * frame goes to a thousand sockets: it is encoded once and the same bytes are written to each.
 */

export function textFrame(text: string): Buffer {
  const length = Buffer.byteLength(text);
  const header = length < 126 ? 2 : length < 65_536 ? 4 : 10;
  const frame = Buffer.allocUnsafe(header + length);
  frame[0] = 0x81;
  if (header === 2) frame[1] = length;
  else if (header === 4) {
    frame[1] = 126;
    frame.writeUInt16BE(length, 2);
  } else {
    frame[1] = 127;
    frame.writeBigUInt64BE(BigInt(length), 2);
  }
  frame.write(text, header);
  return frame;
}

export function messageFrame(message: unknown): Buffer {
  return textFrame(JSON.stringify(message));
}
