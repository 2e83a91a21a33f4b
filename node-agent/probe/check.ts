/** One check of an address outside the mesh (ICMP, TCP, HTTP), folded like a link. Shared by uplinks and LAN gateways. */
import { get } from "node:http";
import { connect } from "node:net";
import { createLinkHealth, onAnswer, onSent, onVoidWindow, type HealthConfig, type HealthState } from "../../mesh/elect/health.ts";
import { isLate, judgeLinks } from "../../mesh/elect/stall.ts";
import { joinEndpoint } from "../../mesh/net/ip.ts";
import type { Clock } from "./clock.ts";
import type { SpawnLines } from "../drivers/exec.ts";
import { createPing } from "./ping.ts";

export type CheckSpec =
  | { readonly type: "icmp"; readonly address: string }
  | { readonly type: "tcp"; readonly address: string; readonly port: number }
  | { readonly type: "http"; readonly address: string; readonly port: number; readonly path: string; readonly status: number };

export interface Check {
  readonly health: HealthState;
  close(): void;
}

export interface CheckPorts {
  readonly spawn: SpawnLines;
  readonly clock: Clock;
}

/** An attempt that has neither worked nor failed by then is given up, so that attempts never pile up. */
const ATTEMPT_MS = 2_000;
/** A SYN is sent again after a second. What is answered then would be taken for a long round trip, and stretch the deadlines. */
const CONNECT_MS = 950;
/** Intervals without a word of `ping`, which otherwise says something in each. */
const PING_SILENCE = 2;

/** Starts checking. `onChange` follows every change of the verdict. */
export function createCheck(spec: CheckSpec, config: HealthConfig, { spawn, clock }: CheckPorts, onChange: () => void): Check {
  const health = createLinkHealth(config, clock.now());
  const attempts = new Set<AbortController>();
  let seen = 0;
  let dueAt = clock.now();
  let timer: NodeJS.Timeout | undefined;
  let closed = false;

  const answered = (seq: number): void => {
    if (closed) return;
    onAnswer(health, seq, clock.now());
    tell();
  };
  const tell = (): void => {
    if (health.version === seen) return;
    seen = health.version;
    onChange();
  };
  // `ping` sends by its own clock, which is a little slower than ours: its requests are the probes, and the time that it measured is
  // the round trip. Counted in windows of ours, a reply's place in its window would be taken for one.
  let base = 0;
  let heardAt = clock.now();
  const requested = (request: number, sentAt: number): number => {
    heardAt = clock.now();
    while (health.lastSeq < base + request) onSent(health, sentAt);
    return base + request;
  };
  const ping =
    spec.type === "icmp"
      ? createPing({
          spawn,
          address: spec.address,
          intervalMs: config.intervalMs,
          onStart: () => (base = health.lastSeq),
          onReply: (request, rttMs) => answered(requested(request, clock.now() - rttMs)),
          onLate: (request) => {
            requested(request, clock.now() - config.intervalMs);
            judgeLinks([health], clock.now());
            tell();
          },
        })
      : undefined;

  const attempt = (): void => {
    if (spec.type === "icmp") {
      // A `ping` that says nothing at all (no route, cannot start) sends nothing that could be answered.
      if (clock.now() - heardAt <= PING_SILENCE * config.intervalMs) return;
      onSent(health, clock.now());
      base++;
      return;
    }
    const seq = onSent(health, clock.now());
    const abort = new AbortController();
    attempts.add(abort);
    const signal = AbortSignal.any([abort.signal, AbortSignal.timeout(spec.type === "tcp" ? CONNECT_MS : ATTEMPT_MS)]);
    const work = spec.type === "tcp" ? tryTcp(spec, signal) : tryHttp(spec, signal);
    void work.then((ok) => {
      attempts.delete(abort);
      if (ok) answered(seq);
    });
  };
  const tick = (): void => {
    const now = clock.now();
    if (isLate(dueAt, now, config.intervalMs)) {
      onVoidWindow(health);
      heardAt = now;
    }
    // After the poll that follows the timer: answers that lay waiting are read first.
    setImmediate(() => {
      if (closed) return;
      judgeLinks([health], now);
      tell();
      attempt();
    });
    dueAt = Math.max(dueAt + config.intervalMs, now + config.intervalMs / 2);
    timer = setTimeout(tick, dueAt - now);
  };
  tick();
  return {
    health,
    close() {
      closed = true;
      clearTimeout(timer);
      ping?.close();
      for (const one of attempts) one.abort();
    },
  };
}

function tryTcp({ address, port }: { address: string; port: number }, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port });
    const end = (ok: boolean) => (): void => {
      socket.destroy();
      resolve(ok);
    };
    socket.once("connect", end(true));
    socket.once("error", end(false));
    signal.addEventListener("abort", end(false), { once: true });
  });
}

function tryHttp(
  { address, port, path, status }: { address: string; port: number; path: string; status: number },
  signal: AbortSignal,
): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get(`http://${joinEndpoint(address, port)}${path}`, { agent: false, signal }, (response) => {
      response.destroy();
      resolve(response.statusCode === status);
    });
    request.once("error", () => resolve(false));
  });
}
