/** One connection, with a reader that takes what is sent to it when it is told to. */
import { EventEmitter } from "node:events";
import { Duplex } from "node:stream";
import { afterEach, expect, test, vi } from "vitest";
import type { WebSocket } from "ws";
import { BYTES, createAllowance } from "../../../controller/stream/allowance.ts";
import { messageFrames } from "../../../controller/stream/frame.ts";
import { openSession, type AgentSession } from "../../../controller/stream/session.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";

const MIB = 1024 * 1024;
const NODE = "asker" as NodeName;
const VIEWS = ["a", "b", "c"];

afterEach(() => void vi.useRealTimers());

interface Connection {
  readonly session: AgentSession;
  /** Views that were asked about, in the order of their answers. */
  readonly answered: string[];
  readonly floods: string[];
  slow: boolean;
  /** Whether the agent's messages are read. */
  read: boolean;
  say(message: object): void;
  ask(view: string): void;
  /** The agent reads all that was sent to it. */
  drain(): Promise<void>;
}

/** An agent that was greeted, and a controller each of whose answers has that many bytes; its clock stands still. */
async function connection(answerBytes: number): Promise<Connection> {
  const held: (() => void)[] = [];
  const socket = new Duplex({ read: () => {}, write: (_piece, _encoding, left) => void held.push(left), highWaterMark: 1 });
  const frames = messageFrames("x".repeat(answerBytes));
  const greeted = Promise.withResolvers<AgentSession>();
  const answered: string[] = [];
  const floods: string[] = [];
  const state = { slow: false, read: true };
  const ws = Object.assign(new EventEmitter(), {
    OPEN: 1,
    readyState: 1,
    pause: () => void (state.read = false),
    resume: () => void (state.read = true),
    terminate: () => void socket.destroy(),
    close: () => {},
  });
  openSession({
    node: NODE,
    ws: ws as unknown as WebSocket,
    socket,
    allowance: createAllowance(),
    monotonic: () => 0,
    handlers: {
      hello: async (_hello, session) => {
        for (const view of VIEWS) session.views.add(view);
        greeted.resolve(session);
        return true;
      },
      buckets(session, view, _hashes, left) {
        answered.push(view);
        session.write(frames, left);
      },
      slow: () => void (state.slow = true),
      flood: (what) => void floods.push(what),
      report: () => {},
      beat: () => {},
      leave: () => {},
      closed: () => {},
    },
  });
  const say = (message: object): void => void ws.emit("message", Buffer.from(JSON.stringify(message)));
  say({ t: "hello", node: NODE, format: 1, version: "0", bootId: "b", machineId: "m", views: {} });
  const session = await greeted.promise;
  await turn();
  return Object.assign(state, {
    session,
    answered,
    floods,
    say,
    ask: (view: string) => say({ t: "buckets", v: view, h: Array.from({ length: 256 }, () => "0") }),
    async drain() {
      while (held.length > 0) {
        held.shift()!();
        await turn();
      }
    },
  });
}

/** Streams call back on the next tick. */
const turn = (): Promise<void> => new Promise((done) => process.nextTick(() => queueMicrotask(done)));

test("an agent that asks before it has read is answered one question after the other, and does not count as a slow reader", async () => {
  const one = await connection(3 * MIB);
  for (let i = 0; i < 4; i++) for (const view of VIEWS) one.ask(view);
  await turn();
  expect(one.answered).toEqual(["a"]);
  await one.drain();
  expect(one.slow).toBe(false);
  // The first was asked about again while it was answered; of several questions that wait the last counts.
  expect(one.answered).toEqual(["a", "b", "c", "a"]);
});

test("an agent that does not read what is sent to it without a question is dropped", async () => {
  const one = await connection(0);
  for (let i = 0; i < 3; i++) one.session.write(messageFrames("x".repeat(3 * MIB)));
  expect(one.slow).toBe(true);
});

test("what is sent to an agent by its asking is as if it had said it: once that is too much its questions wait, too", async () => {
  const one = await connection(BYTES.burst / 4);
  vi.useFakeTimers();
  for (let i = 0; i < 3; i++) {
    one.ask("a");
    await one.drain();
  }
  expect(one.floods).toEqual([]);
  for (const view of VIEWS) one.ask(view);
  await one.drain();
  expect(one.answered).toEqual(["a", "a", "a", "a"]);
  expect([...new Set(one.floods)]).toEqual(["slowed"]);
  expect(one.read).toBe(false);
  vi.advanceTimersByTime(1_000);
  await turn();
  expect(one.read).toBe(false);
  expect(one.answered).toEqual(["a", "a", "a", "a", "b"]);
});
