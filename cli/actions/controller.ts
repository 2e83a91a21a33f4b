/** `controller run`, `backup`, `restore`, `recovery confirm`. */
import { existsSync } from "node:fs";
import type { Command } from "commander";
import { IsthmusError } from "../../mesh/errors.ts";
import type { GlobalFlags } from "../cli.ts";
import { apiPath, clientFor } from "../client.ts";
import { connect } from "../connect.ts";
import { chooseContext } from "../context.ts";
import type { Io } from "../io.ts";
import { step } from "../progress.ts";
import { writeSecret } from "../secret-file.ts";
import { settings } from "../settings.ts";
import { processSignal } from "../signals.ts";

interface ControllerSettings {
  readonly data: string;
  readonly listen: string;
  readonly advertise?: readonly string[] | string;
  readonly socket: string;
  readonly logLevel: string;
  readonly overlay?: string;
  readonly overlay6?: string;
  readonly links?: string;
}

export async function runControllerCommand(io: Io, command: Command): Promise<number> {
  const given = await settings<ControllerSettings>(command);
  const advertise = given.advertise === undefined ? [] : typeof given.advertise === "string" ? given.advertise.split(",") : given.advertise;
  const [{ runController }, { pino }] = await Promise.all([import("../../controller/main.ts"), import("pino")]);
  const log = pino({ level: given.logLevel, base: { part: "controller" } });
  const running = await runController({
    data: given.data,
    listen: given.listen,
    advertise,
    socket: given.socket,
    log,
    network: firstNetwork(given),
    signal: processSignal(io),
  });
  await running.closed;
  return 0;
}

/** Ranges that the network object gets when the store has none yet. */
function firstNetwork({ overlay, overlay6, links }: ControllerSettings): { overlayV4?: string; overlayV6?: string; linksV4?: string } {
  return {
    ...(overlay === undefined ? {} : { overlayV4: overlay }),
    ...(overlay6 === undefined ? {} : { overlayV6: overlay6 }),
    ...(links === undefined ? {} : { linksV4: links }),
  };
}

export async function backup(io: Io, file: string | undefined, flags: GlobalFlags & { readonly force?: boolean }): Promise<number> {
  const path = file ?? `isthmus-backup-${new Date(io.now()).toISOString().replace(/[-:]|\.\d+/g, "")}`;
  if (path !== "-" && flags.force !== true && existsSync(path))
    throw new IsthmusError("AlreadyExists", `${path} exists already`, { remedy: "Choose another file, or give --force." });
  const client = await connect(io, flags);
  const bytes = await client.bytes(apiPath(["backup"]));
  if (path === "-") {
    await new Promise<void>((done, failed) =>
      process.stdout.write(bytes, (error) => (error === undefined || error === null ? done() : failed(error))),
    );
    return 0;
  }
  await writeSecret(path, bytes);
  io.out(`backup of ${bytes.length} bytes written to ${path}\n`);
  io.err("It holds the keys of the certificate authority: keep it as safe as the controller itself.\n");
  return 0;
}

export async function restore(io: Io, file: string, flags: { readonly data: string }): Promise<number> {
  using progress = step(io, `restoring ${file} into ${flags.data}`);
  const { restoreController } = await import("../../controller/main.ts");
  await restoreController({ data: flags.data, from: file });
  progress.done(`restored into ${flags.data}`);
  io.out(
    `Start it with: isthmus controller run --data ${flags.data}\nIt waits in Recovery until the agents have reported, or until \`isthmus recovery confirm\`.\n`,
  );
  return 0;
}

export async function confirmRecovery(io: Io, flags: GlobalFlags): Promise<number> {
  // Without the warning that there is a Recovery: whoever ends it knows.
  const client = clientFor(await chooseContext(io, flags));
  const { recovering } = (await client.call("GET", apiPath(["status"]))) as { recovering?: boolean };
  if (recovering === false) {
    io.out("the controller is not in Recovery: nothing to confirm\n");
    return 0;
  }
  await client.call("POST", apiPath(["recovery", "confirm"]), {});
  io.out("recovery confirmed\n");
  return 0;
}
