/** The outside of the command line, so that a test can be one. */
export interface Io {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  readonly stdin: () => Promise<string>;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Standard output is a terminal. */
  readonly outTty: boolean;
  /** Standard error is a terminal: progress may be drawn there. */
  readonly errTty: boolean;
  readonly now: () => number;
  /** Aborts what waits or watches. */
  readonly signal: AbortSignal;
}

/** The real one. */
export function processIo(): Io {
  return {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    stdin: readStdin,
    env: process.env,
    outTty: process.stdout.isTTY,
    errTty: process.stderr.isTTY,
    now: () => Date.now(),
    signal: new AbortController().signal,
  };
}

/** NO_COLOR (no-color.org): present and not empty means no colour, whatever the terminal. */
export function coloured(io: Io): boolean {
  return io.outTty && (io.env["NO_COLOR"] ?? "") === "" && io.env["TERM"] !== "dumb";
}

async function readStdin(): Promise<string> {
  process.stdin.setEncoding("utf8");
  let text = "";
  for await (const part of process.stdin) text += String(part);
  return text;
}
