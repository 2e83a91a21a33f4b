import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { expect, test } from "vitest";
import { identify, isAlive } from "../../lab/process.ts";

const MODULE = join(import.meta.dirname, "../../tools/gates.ts");

test.each(["SIGTERM", "SIGINT", "SIGHUP"] as const)("a run that gets %s ends its gate and starts no other", async (signal) => {
  const gates = [
    { name: "first", argv: [process.execPath, "-e", `console.log("pid=" + process.pid); setTimeout(() => console.log("to its end"), 20_000)`] },
    { name: "second", argv: ["echo", "it was started"] },
  ];
  const run = spawn(
    process.execPath,
    [
      "--input-type=module-typescript",
      "-e",
      `import { heedSignals, runGates } from ${JSON.stringify(MODULE)};
      const stopped = heedSignals();
      console.log("failed=" + await runGates(${JSON.stringify(gates)}, "/", stopped));`,
    ],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  let said = "";
  const first = Promise.withResolvers<number>();
  run.stdout.on("data", (data: Buffer) => {
    said += data.toString();
    const pid = /pid=(\d+)\n/.exec(said)?.[1];
    if (pid !== undefined) first.resolve(Number(pid));
  });
  const gate = identify(await first.promise);
  run.kill(signal);
  const [status] = await once(run, "close");
  expect({ status, alive: gate === undefined || isAlive(gate) }).toEqual({ status: 0, alive: false });
  expect(said).toContain("failed=first\n");
  expect(said).not.toMatch(/to its end|it was started/);
});
