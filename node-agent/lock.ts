/**
 * One agent per host. What two agents would fight over is one network namespace's kernel state, so the lock is an
 * abstract unix socket: it belongs to the network namespace, only one process can bind it, and the kernel frees it with
 * the process. A pid file in the run directory names the holder for people.
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { IsthmusError } from "../mesh/errors.ts";
import { codeOf } from "./files.ts";

const NAME = "\0isthmus-agent";

export interface Lock {
  release(): Promise<void>;
}

export function pidFileOf(run: string): string {
  return join(run, "agent.pid");
}

/** @throws AlreadyRunning */
export async function takeLock(run: string): Promise<Lock> {
  const server = createServer((socket) => socket.destroy());
  const pidFile = pidFileOf(run);
  await new Promise<void>((done, failed) => {
    server.once("error", (error) => failed(codeOf(error) === "EADDRINUSE" ? alreadyRunning(pidFile) : error));
    server.listen(NAME, done);
  });
  server.unref();
  writeFileSync(pidFile, `${process.pid}\n`, { mode: 0o600 });
  return {
    release: () =>
      new Promise((done) => {
        rmSync(pidFile, { force: true });
        server.close(() => done());
      }),
  };
}

/** Whether an agent runs on this host. */
export async function isRunning(): Promise<boolean> {
  const server = createServer();
  return new Promise((done) => {
    server.once("error", () => done(true));
    server.listen(NAME, () => server.close(() => done(false)));
  });
}

function alreadyRunning(pidFile: string): IsthmusError {
  let pid = "";
  try {
    pid = ` (process ${readFileSync(pidFile, "utf8").trim()})`;
  } catch {
    // The holder may use another run directory.
  }
  return new IsthmusError("AlreadyRunning", `an isthmus agent runs on this host already${pid}`, {
    remedy: "see `isthmus status`; stop the other agent before starting a second one",
  });
}
