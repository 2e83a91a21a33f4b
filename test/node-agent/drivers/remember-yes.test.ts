import { expect, test } from "vitest";
import { rememberYes } from "../../../node-agent/drivers/wireguard.ts";

test("a kernel that had no answer is asked again at once, one that said no after a while, and one that said yes never", async () => {
  const answers = [() => Promise.reject(new Error("modprobe is slow")), async () => false, async () => true];
  let now = 0;
  const ask = rememberYes(
    async () => answers.shift()!(),
    () => now,
  );
  await expect(ask()).rejects.toThrow("modprobe is slow");
  expect([await ask(), await ask()]).toEqual([false, false]);
  now += 3_600_000;
  expect(await ask()).toBe(true);
  now += 3_600_000;
  expect(await ask()).toBe(true);
});
