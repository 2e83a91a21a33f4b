/**
 * What one agent asks about its views. The next question is answered when the answer to the one before has left: otherwise an
 * agent that asks for more than it can read at once would fill the memory, and look like one that reads too slowly.
 */

export interface Questions {
  /** Of several about one view the last counts: what it would answer holds all that the others would. */
  ask(view: string, hashes: readonly string[]): void;
  /** Goes on after `mayAnswer` said no. */
  next(): void;
}

export interface QuestionsOptions {
  /** Calls `answered` when the answer has left, or never will, or there is none. */
  readonly answer: (view: string, hashes: readonly string[], answered: () => void) => void;
  readonly mayAnswer: () => boolean;
}

export function createQuestions({ answer, mayAnswer }: QuestionsOptions): Questions {
  const waiting = new Map<string, readonly string[]>();
  let answering = false;

  function next(): void {
    const [first] = waiting;
    if (first === undefined || answering || !mayAnswer()) return;
    waiting.delete(first[0]);
    answering = true;
    answer(...first, () => {
      answering = false;
      // Not from within an answer: each counts what it writes.
      queueMicrotask(next);
    });
  }

  return {
    ask(view, hashes) {
      waiting.set(view, hashes);
      next();
    },
    next,
  };
}
