/**
 * What the halves of a kernel test say: each line as it comes, with the time since the start and whose it is, a sign of life where
 * nothing comes, and at the end what each file took by this machine's clock (vitest's own numbers are the guest's, in one half).
 */

export interface Narrator {
  /** One line of ours. */
  readonly say: (line: string) => void;
  /** Takes vitest's output in pieces, as it comes. */
  readonly take: (text: string) => void;
  /** Says what is left, and ends. */
  readonly end: () => void;
  readonly files: () => readonly FileTime[];
}

export interface FileTime {
  readonly file: string;
  readonly ms: number;
  readonly green: number;
  readonly red: number;
}

/** A test's line of vitest's verbose reporter. */
const TEST = /^ *([✓×]) .*?(test\/\S+\.test\.ts) > /;
/** Where vitest begins: what comes before, the boot of a machine, is no file's. */
const BEGIN = /^ *RUN +v/;
/** After so long without a word one is said. */
const SILENCE_MS = 120_000;

/** @param now milliseconds; @param print takes a whole line */
export function narrator(who: string, now: () => number, print: (line: string) => void): Narrator {
  const start = now();
  const files = new Map<string, FileTime>();
  let rest = "";
  let heard = start;
  let before = start;
  const say = (line: string): void => {
    heard = now();
    print(`${clock(heard - start)} ${who} | ${line}`);
  };
  const count = (line: string): void => {
    if (BEGIN.test(line)) before = now();
    const [, sign, file] = TEST.exec(line) ?? [];
    if (file === undefined) return;
    const { ms = 0, green = 0, red = 0 } = files.get(file) ?? {};
    files.set(file, { file, ms: ms + now() - before, green: green + (sign === "✓" ? 1 : 0), red: red + (sign === "×" ? 1 : 0) });
    before = now();
  };
  const line = (text: string): void => {
    count(text);
    if (text.trim() !== "") say(text.trimEnd());
  };
  const sign = setInterval(() => {
    if (now() - heard < SILENCE_MS) return;
    const tests = [...files.values()].reduce((sum, { green, red }) => sum + green + red, 0);
    say(`… still running, ${tests} tests over so far`);
  }, SILENCE_MS / 4);
  sign.unref();
  return {
    say,
    take(text) {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      lines.forEach(line);
    },
    end() {
      clearInterval(sign);
      line(rest);
      rest = "";
    },
    files: () => [...files.values()],
  };
}

/** Minutes and seconds. */
export function clock(ms: number): string {
  const seconds = Math.round(ms / 1000);
  return `${String(Math.floor(seconds / 60)).padStart(3)}:${String(seconds % 60).padStart(2, "0")}`;
}
