/** Events of the virtual clock. */
export interface Queue {
  add(at: number, run: () => void): void;
  run(until: number, advance: (at: number) => void, counted: () => void): void;
}

/** A binary heap by time; what was added first comes first at equal times. */
export function createQueue(): Queue {
  const heap: { at: number; order: number; run: () => void }[] = [];
  let order = 0;
  const before = (a: number, b: number): boolean => heap[a]!.at < heap[b]!.at || (heap[a]!.at === heap[b]!.at && heap[a]!.order < heap[b]!.order);
  const swap = (a: number, b: number): void => {
    [heap[a], heap[b]] = [heap[b]!, heap[a]!];
  };
  const pop = (): (typeof heap)[number] => {
    swap(0, heap.length - 1);
    const top = heap.pop()!;
    for (let i = 0; ;) {
      let least = i;
      for (const child of [2 * i + 1, 2 * i + 2]) if (child < heap.length && before(child, least)) least = child;
      if (least === i) return top;
      swap(i, least);
      i = least;
    }
  };
  return {
    add(at, run) {
      heap.push({ at, order: order++, run });
      for (let i = heap.length - 1; i > 0 && before(i, (i - 1) >> 1); i = (i - 1) >> 1) swap(i, (i - 1) >> 1);
    },
    run(until, advance, counted) {
      while (heap.length > 0 && heap[0]!.at <= until) {
        const { at, run } = pop();
        advance(at);
        counted();
        run();
      }
    },
  };
}
