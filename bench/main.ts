/** `isthmus bench NAME`: measures, prints a table, and the raw samples with `-o json`. */
import { cpus, loadavg, release, totalmem } from "node:os";
import { Command, InvalidArgumentError, Option } from "commander";
import { type Row, summarise, table } from "./stats.ts";

export interface BenchOptions {
  /** Repetitions; each bench has its own default. */
  readonly n?: number;
  readonly log: (line: string) => void;
  /** Ends the bench; what it built is taken away. */
  readonly signal: AbortSignal;
}

type Bench = (options: BenchOptions) => Promise<Row[]>;

interface Entry {
  readonly what: string;
  /** Repetitions with `--quick`. */
  readonly quick: number;
  readonly load: () => Promise<Bench>;
}

const BENCHES: Readonly<Record<string, Entry>> = {
  failover: {
    what: "gap in a 5 ms packet stream when a gateway, its uplink, the link to it or (first) the controller dies",
    quick: 10,
    load: async () => (await import("./failover.ts")).failover,
  },
  drain: { what: "packets lost and TCP connections broken by planned moves", quick: 6, load: async () => (await import("./drain.ts")).drain },
  routes: {
    what: "2,000 destinations programmed, moved, and one of them changed",
    quick: 10,
    load: async () => (await import("./routes.ts")).routes,
  },
  join: { what: "join command until the first ping over the overlay", quick: 10, load: async () => (await import("./join.ts")).join },
  agent: {
    what: "idle CPU and memory of an agent with 50 peers, 2,000 routes and 3 gateways",
    quick: 2,
    load: async () => (await import("./agent.ts")).agent,
  },
  fanout: {
    what: "1,000 simulated agents on one controller: one joins, memory, bytes, restart",
    quick: 300,
    load: async () => (await import("./fanout.ts")).fanout,
  },
};
const NAMES = Object.keys(BENCHES);

interface Flags {
  readonly count?: number;
  readonly quick?: boolean;
  readonly output: string;
}

export async function benchCommand(argv: readonly string[]): Promise<number> {
  const program = new Command("isthmus bench")
    .description("measure, and print a table with medians, p99 and spread")
    .argument("<name>", `one of: ${NAMES.join(", ")}; all`)
    .option("-n, --count <n>", "repetitions (fanout: agents)", wholeNumber)
    .option("--quick", "few repetitions: shows that it works, says little about p99")
    .addOption(new Option("-o, --output <format>", "table, or json with every sample").choices(["table", "json"]).default("table"))
    .addHelpText(
      "after",
      `\n${Object.entries(BENCHES)
        .map(([name, { what }]) => `  ${name.padEnd(10)} ${what}`)
        .join("\n")}`,
    );
  program.parse([...argv], { from: "user" });
  const flags = program.opts<Flags>();
  const name = program.args[0] ?? "";
  if (name !== "all" && BENCHES[name] === undefined) {
    console.error(`isthmus bench: no bench is named ${name}; there are: ${NAMES.join(", ")}, all`);
    return 2;
  }
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort(new Error(`stopped by ${signal}`)));
  let failed = 0;
  for (const one of name === "all" ? NAMES : [name]) {
    try {
      print(one, await measure(one, flags, stop.signal), flags);
    } catch (error) {
      if (name !== "all" || stop.signal.aborted) throw error;
      failed++;
      console.error(`${one}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return failed === 0 ? 0 : 1;
}

async function measure(name: string, { count, quick }: Flags, signal: AbortSignal): Promise<Row[]> {
  const entry = BENCHES[name]!;
  const n = count ?? (quick === true ? entry.quick : undefined);
  const bench = await entry.load();
  return bench({ ...(n === undefined ? {} : { n }), signal, log: (line) => console.error(`${name}: ${line}`) });
}

function print(name: string, rows: readonly Row[], { output }: Flags): void {
  const at = new Date().toISOString();
  if (output === "json") {
    const judged = rows.map((row) => ({ ...row, summary: summarise(row.samples) }));
    console.log(JSON.stringify({ bench: name, at, machine: machine(), load: loadavg(), rows: judged }, null, 2));
  } else {
    console.log(
      `${name} · ${at.slice(0, 16).replace("T", " ")} UTC · ${machine()} · load ${loadavg()
        .map((one) => one.toFixed(1))
        .join(" ")}\n\n${table(rows)}\n`,
    );
  }
}

function machine(): string {
  return `${cpus().length} cores ${cpus()[0]?.model.trim() ?? ""}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, Node ${process.versions.node}`;
}

function wholeNumber(text: string): number {
  if (!/^[1-9][0-9]{0,6}$/.test(text)) throw new InvalidArgumentError("write a whole number of at least 1.");
  return Number(text);
}
