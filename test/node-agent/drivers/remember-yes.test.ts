import { expect, test } from "vitest";
import { rememberYes } from "../../../node-agent/drivers/wireguard.ts";
import { eventually } from "../fake-controller.ts";

const HOUR = 3_600_000;

test("a kernel that had no answer is asked again at once, one that said no after a while, and one that said yes never", async () => {
  const answers = [() => Promise.reject(new Error("modprobe is slow")), async () => false, async () => true];
  let now = 0;
  const ask = rememberYes(
    async () => answers.shift()!(),
    () => now,
  );
  await expect(ask()).rejects.toThrow("modprobe is slow");
  expect([await ask(), await ask()]).toEqual([false, false]);
  now += HOUR;
  await eventually("the new answer", ask);
  now += HOUR;
  expect(await ask()).toBe(true);
});

test("nobody waits for a kernel that said no and is asked again, nor is harmed when it does not say anything", async () => {
  let now = 0;
  let asked = 0;
  let fail: ((error: Error) => void) | undefined;
  const ask = rememberYes(
    () => (asked++ === 0 ? Promise.resolve(false) : new Promise((_, reject) => (fail = reject))),
    () => now,
  );
  expect(await ask()).toBe(false);
  now += HOUR;
  expect([await ask(), await ask(), asked]).toEqual([false, false, 2]);
  fail?.(new Error("modprobe hangs"));
  await new Promise((done) => setImmediate(done));
  expect([await ask(), asked]).toEqual([false, 2]);
  now += HOUR;
  expect([await ask(), asked]).toEqual([false, 3]);
});
