/** Long steps: a spinner with the time on a terminal, plain lines elsewhere. */
import type { Io } from "./io.ts";
import { styler } from "./render/style.ts";
import { ageText } from "./render/time.ts";

const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const FRAME_MS = 100;

export interface Step extends Disposable {
  /** Another sentence for the same step; a quiet one (a countdown) is drawn on a terminal only. */
  say(text: string, quiet?: "quiet"): void;
  done(text?: string): void;
}

/** Begins a step. Disposing without `done` marks it as failed. */
export function step(io: Io, text: string): Step {
  const style = styler({ ...io, outTty: io.errTty });
  const began = io.now();
  let now = text;
  let ended = false;
  let frame = 0;
  const draw = (): void => io.err(`\r\u001b[K${FRAMES[frame++ % FRAMES.length]} ${now} ${style("dim", ageText(io.now() - began))}`);
  const timer = io.errTty ? setInterval(draw, FRAME_MS) : undefined;
  timer?.unref();
  if (io.errTty) draw();
  else io.err(`${now} …\n`);
  const end = (mark: string, last: string): void => {
    if (ended) return;
    ended = true;
    clearInterval(timer);
    if (io.errTty) io.err(`\r\u001b[K${mark} ${last}\n`);
    else if (last !== text) io.err(`${last}\n`);
  };
  return {
    say: (next, quiet) => {
      if (next !== now && !io.errTty && quiet === undefined) io.err(`${next}\n`);
      now = next;
    },
    done: (last) => end(style("green", "✓"), last ?? now),
    [Symbol.dispose]: () => end(style("red", "✗"), now),
  };
}
