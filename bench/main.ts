/** `isthmus bench NAME`: measures, prints a table, and the raw samples with `-o json`. */
import { cpus, release, totalmem } from "node:os";
import { Command } from "commander";
import { type Row, summarise, table } from "./stats.ts";

export interface BenchOptions {
  /** Repetitions; each bench has its own default. */
  readonly n?: number;
  readonly log: (line: string) => void;
}

type Bench = (options: BenchOptions) => Promise<Row[]>;

const BENCHES: Record<string, { readonly what: string; readonly load: () => Promise<Bench> }> = {
  fanout: { what: "1,000 simulated agents on one controller: one joins, memory, bytes, restart", load: async () => (await import("./fanout.ts")).fanout },
};

export async function benchCommand(argv: readonly string[]): Promise<number> {
  const program = new Command("isthmus bench")
    .description("measure, and print a table with medians, p99 and spread")
    .argument("<name>", `one of: ${Object.keys(BENCHES).join(", ")}`)
    .option("-n, --count <n>", "repetitions", (text) => Number.parseInt(text, 10))
    .option("-o, --output <format>", "table or json", "table")
    .addHelpText("after", `\n${Object.entries(BENCHES).map(([name, bench]) => `  ${name.padEnd(10)} ${bench.what}`).join("\n")}`);
  program.parse([...argv], { from: "user" });
  const { count, output } = program.opts<{ count?: number; output: string }>();
  const name = program.args[0] ?? "";
  const bench = BENCHES[name];
  if (bench === undefined) {
    console.error(`isthmus bench: no bench is named ${name}; there are: ${Object.keys(BENCHES).join(", ")}`);
    return 2;
  }
  const run = await bench.load();
  const rows = await run({ ...(count === undefined ? {} : { n: count }), log: (line) => console.error(line) });
  if (output === "json") console.log(JSON.stringify({ bench: name, at: new Date().toISOString(), machine: machine(), rows: rows.map((row) => ({ ...row, summary: summarise(row.samples) })) }, null, 2));
  else console.log(`${name} · ${new Date().toISOString().slice(0, 10)} · ${machine()}\n\n${table(rows)}`);
  return 0;
}

function machine(): string {
  return `${cpus().length} cores ${cpus()[0]?.model.trim() ?? ""}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, Node ${process.versions.node}`;
}
