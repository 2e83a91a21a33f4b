/** Runs a command line in this process and keeps what it printed. */
import { run } from "../../cli/main.ts";

export interface Ran {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: string;
  readonly now?: number;
  /** A clock that goes, instead of `now`. */
  readonly clock?: () => number;
  readonly tty?: boolean;
  readonly signal?: AbortSignal;
  readonly onOut?: (soFar: string) => void;
}

/** A fixed time, so that ages are the same on every run. */
export const NOW = Date.parse("2030-01-01T00:00:00Z");

export async function isthmus(argv: readonly string[], options: RunOptions = {}): Promise<Ran> {
  let out = "";
  let err = "";
  const status = await run(argv, {
    out: (text) => {
      out += text;
      options.onOut?.(out);
    },
    err: (text) => (err += text),
    stdin: () => Promise.resolve(options.stdin ?? ""),
    env: { HOME: "/nonexistent", ISTHMUS_RUN: "/nonexistent", ...options.env },
    outTty: options.tty ?? false,
    errTty: false,
    now: options.clock ?? (() => options.now ?? NOW),
    signal: options.signal ?? new AbortController().signal,
  });
  return { status, out, err };
}
