/** `config …`. */
import { readFile } from "node:fs/promises";
import { IsthmusError } from "../../mesh/errors.ts";
import { type Context, contextNamed, readContexts, withContext, writeContexts } from "../context.ts";
import type { Io } from "../io.ts";
import { renderTable } from "../render/table.ts";
import { asUrl } from "./admin.ts";

interface ConfigFlags {
  readonly headers?: boolean;
  readonly output?: string;
  readonly server?: string;
  readonly atSocket?: string;
  readonly caFile?: string;
  readonly certFile?: string;
  readonly keyFile?: string;
}

export async function useContext(io: Io, name: string): Promise<number> {
  const contexts = await readContexts(io);
  contextNamed(contexts, name);
  await writeContexts(io, { ...contexts, current: name });
  io.out(`switched to context ${name}\n`);
  return 0;
}

export async function currentContext(io: Io): Promise<number> {
  const { current } = await readContexts(io);
  if (current === undefined)
    throw new IsthmusError("NotFound", "no context is current", { remedy: "Choose one with `isthmus config use-context NAME`." });
  io.out(`${current}\n`);
  return 0;
}

export async function getContexts(io: Io, _: string, flags: ConfigFlags): Promise<number> {
  const { current, contexts } = await readContexts(io);
  if (flags.output === "name") {
    io.out(contexts.map((context) => `${context.name}\n`).join(""));
    return 0;
  }
  if (contexts.length === 0) {
    io.err("No contexts found.\n");
    return 0;
  }
  const columns = [
    { header: "CURRENT", value: (context: Context) => (context.name === current ? "*" : " ") },
    { header: "NAME", value: (context: Context) => context.name },
    { header: "CONTROLLER", value: (context: Context) => context.socket ?? context.server ?? "" },
  ];
  io.out(renderTable(columns, contexts, { headers: flags.headers !== false, wide: true }).text);
  return 0;
}

export async function setContext(io: Io, name: string, flags: ConfigFlags): Promise<number> {
  const contexts = await readContexts(io);
  const before = contexts.contexts.find((context) => context.name === name);
  if (flags.server !== undefined && flags.atSocket !== undefined)
    throw new IsthmusError("BadRequest", "--server and --at-socket exclude each other", { remedy: "Give one of the two." });
  const [ca, cert, key] = await Promise.all([pem(flags.caFile), pem(flags.certFile), pem(flags.keyFile)]);
  const { server: _server, socket: _socket, ...kept } = before ?? { name };
  const way =
    flags.server !== undefined
      ? { server: asUrl(flags.server) }
      : flags.atSocket !== undefined
        ? { socket: flags.atSocket }
        : { ...pick(before, "server"), ...pick(before, "socket") };
  const context: Context = {
    ...kept,
    name,
    ...way,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
  };
  if (context.server === undefined && context.socket === undefined)
    throw new IsthmusError("BadRequest", "a context needs the address of a controller", {
      remedy: "Give --server https://HOST:PORT or --at-socket PATH.",
    });
  await writeContexts(io, withContext(contexts, context));
  io.out(`context ${name} ${before === undefined ? "created" : "changed"}\n`);
  return 0;
}

export async function deleteContext(io: Io, name: string): Promise<number> {
  const contexts = await readContexts(io);
  contextNamed(contexts, name);
  const { current, ...rest } = contexts;
  await writeContexts(io, {
    ...rest,
    ...(current === undefined || current === name ? {} : { current }),
    contexts: contexts.contexts.filter((context) => context.name !== name),
  });
  io.out(`context ${name} deleted\n`);
  return 0;
}

async function pem(file: string | undefined): Promise<string | undefined> {
  if (file === undefined) return undefined;
  const text = await readFile(file, "utf8").catch((error: Error) => {
    throw new IsthmusError("NotFound", `${file} cannot be read: ${error.message}`, { remedy: "Check the path." });
  });
  if (!text.includes("-----BEGIN ")) throw new IsthmusError("BadRequest", `${file} holds no PEM`, { remedy: "Give a file with -----BEGIN … lines." });
  return text;
}

function pick<K extends keyof Context>(context: Context | undefined, key: K): Partial<Pick<Context, K>> {
  return context?.[key] === undefined ? {} : ({ [key]: context[key] } as Partial<Pick<Context, K>>);
}
