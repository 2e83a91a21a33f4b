/** A question to QEMU's monitor, or to its agent in the guest: JSON objects, one per line, over a unix socket. */
import { connect, type Socket } from "node:net";

export interface Request {
  readonly execute: string;
  readonly arguments?: Readonly<Record<string, unknown>>;
}

interface Answer {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
}

/**
 * Asks on a connection of its own, so that a question that was given up leaves no answer to the next one.
 * @param greeting asked first; what comes before `isGreeted` holds belongs to others
 * @throws Error with what the other side said, or that it is gone or silent
 */
export async function ask(
  path: string,
  greeting: Request,
  isGreeted: (value: unknown) => boolean,
  request: Request,
  timeoutMs: number,
): Promise<unknown> {
  const socket = connect(path);
  const timer = setTimeout(() => socket.destroy(new Error(`${request.execute}: no answer within ${timeoutMs} ms`)), timeoutMs);
  try {
    socket.write(`${JSON.stringify(greeting)}\n`);
    let greeted = false;
    for await (const answer of answers(socket)) {
      if (!greeted) {
        greeted = isGreeted(answer.return);
        if (greeted) socket.write(`${JSON.stringify(request)}\n`);
        continue;
      }
      if (answer.error !== undefined) throw new Error(`${request.execute}: ${answer.error.desc}`);
      return answer.return;
    }
    throw new Error(`${request.execute}: the other side closed the connection`);
  } finally {
    clearTimeout(timer);
    socket.destroy();
  }
}

async function* answers(socket: Socket): AsyncGenerator<Answer> {
  let rest = "";
  for await (const text of socket.setEncoding("utf8") as AsyncIterable<string>) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const said = parsed(line);
      // The monitor's first word and its events are no answers.
      if (said !== undefined && ("return" in said || "error" in said)) yield said;
    }
  }
}

/** Half a line may be left from before a reset. */
function parsed(line: string): Answer | undefined {
  try {
    return JSON.parse(line) as Answer;
  } catch {
    return undefined;
  }
}
