/** Applies operations in order, in as few processes as possible: neighbours of one kind go together. */
import { asIsthmusError, type IsthmusError } from "../../mesh/errors.ts";
import type { Operation } from "../../mesh/kernel/operations.ts";
import { addressLine } from "./addresses.ts";
import { writeHosts } from "./hosts.ts";
import { ipBatch, type IpFamily, type IpLine } from "./ip.ts";
import { nexthopFamily, nexthopLine } from "./nexthops.ts";
import { applyNft } from "./nft.ts";
import type { RecordStore } from "./records.ts";
import { routeLine } from "./routes.ts";
import { ruleFamily, ruleLine } from "./rules.ts";
import { restoreSysctl, setSysctl } from "./sysctl.ts";
import { applyLink, applyPeers, removeLink, type PeerOperation } from "./wireguard.ts";
import type { WireguardLook } from "./wireguard-look.ts";

export interface ApplyContext {
  readonly privateKeyFile: string;
  readonly runDir: string;
  readonly hostsFile: string;
  readonly records: RecordStore;
  /** Whether the kernel makes WireGuard devices; asked once, and only when a link is made. */
  readonly kernelWireguard: () => Promise<boolean>;
  readonly look: WireguardLook;
}

/** Those that are lines of `ip -batch`. */
type IpOperation = Extract<Operation, { op: `address.${string}` | `nexthop.${string}` | `route.${string}` | `rule.${string}` }>;

type Kind = "link" | "unlink" | "peer" | "nft" | "sysctl" | "hosts" | `ip${IpFamily}`;

/** An error, or undefined, for each operation. */
export async function applyOperations(
  operations: readonly Operation[],
  context: ApplyContext,
  signal: AbortSignal | undefined,
): Promise<(IsthmusError | undefined)[]> {
  const errors: (IsthmusError | undefined)[] = [];
  for (const step of stepsOf(operations)) errors.push(...(await Promise.all(step.map((group) => applyOne(group, context, signal)))).flat());
  return errors;
}

async function applyOne({ kind, operations }: Group, context: ApplyContext, signal: AbortSignal | undefined): Promise<(IsthmusError | undefined)[]> {
  try {
    signal?.throwIfAborted();
    return await applyGroup(kind, operations, context, signal);
  } catch (error) {
    const failed = asIsthmusError(error, "KernelRefused");
    return operations.map(() => failed);
  }
}

interface Group {
  readonly kind: Kind;
  readonly operations: readonly Operation[];
}

/**
 * Neighbours of one kind; a step's groups go at once. The firewall's table names devices that need not be there, and a device lets
 * nothing in before it has peers, which come after both: after a boot each of the two takes a tenth of a second.
 */
export function stepsOf(operations: readonly Operation[]): Group[][] {
  const steps: Group[][] = [];
  for (let i = 0; i < operations.length;) {
    const kind = kindOf(operations[i]!);
    let end = i + 1;
    while (end < operations.length && kindOf(operations[end]!) === kind) end++;
    const group = { kind, operations: operations.slice(i, end) };
    const [before, more] = steps.at(-1) ?? [];
    if (kind === "link" && before?.kind === "nft" && more === undefined) steps.at(-1)?.push(group);
    else steps.push([group]);
    i = end;
  }
  return steps;
}

function kindOf(operation: Operation): Kind {
  switch (operation.op) {
    case "link.add":
    case "link.set":
      return "link";
    case "link.remove":
      return "unlink";
    case "peer.add":
    case "peer.set":
    case "peer.remove":
    case "peer.reset":
      return "peer";
    case "nexthop.replace":
      return `ip${nexthopFamily(operation.nexthop)}`;
    case "rule.add":
    case "rule.remove":
      return `ip${ruleFamily(operation.rule)}`;
    case "nexthop.remove":
    case "address.add":
    case "address.remove":
    case "route.add":
    case "route.replace":
    case "route.remove":
      return "ipany";
    case "nft.replace":
    case "nft.elements":
    case "nft.remove":
      return "nft";
    case "sysctl.set":
    case "sysctl.restore":
      return "sysctl";
    case "hosts.set":
      return "hosts";
  }
}

async function applyGroup(
  kind: Kind,
  group: readonly Operation[],
  context: ApplyContext,
  signal: AbortSignal | undefined,
): Promise<(IsthmusError | undefined)[]> {
  switch (kind) {
    case "link":
      return applyLinks(group, context);
    case "unlink":
      return Promise.all(
        group.map((operation) =>
          outcome(() => removeLink((operation as Extract<Operation, { op: "link.remove" }>).name, context.runDir, context.look)),
        ),
      );
    case "peer":
      return applyPeerGroup(group as readonly PeerOperation[], context.look);
    case "nft": {
      const error = await applyNft(group as Parameters<typeof applyNft>[0], context.records);
      return group.map(() => error);
    }
    case "sysctl":
      return inTurn(group, (operation) => applySysctl(operation, context.records));
    case "hosts":
      return inTurn(group, async (operation) => {
        if (operation.op === "hosts.set") writeHosts(context.hostsFile, operation.hosts);
      });
    case "ipany":
    case "ip6":
      return ipBatch(
        kind === "ip6" ? "6" : "any",
        group.map((operation) => ipLine(operation as IpOperation)),
        signal,
      );
  }
}

async function applyLinks(group: readonly Operation[], context: ApplyContext): Promise<(IsthmusError | undefined)[]> {
  const kernel = group.some(({ op }) => op === "link.add") ? await context.kernelWireguard() : false;
  return Promise.all(
    group.map((operation) =>
      outcome(async () => {
        if (operation.op === "link.add" || operation.op === "link.set") await applyLink(operation, { ...context, kernel });
      }),
    ),
  );
}

/** One request an interface, all interfaces at once. */
async function applyPeerGroup(group: readonly PeerOperation[], look: WireguardLook): Promise<(IsthmusError | undefined)[]> {
  const links = [...new Set(group.map(({ link }) => link))];
  const failed = new Map(
    await Promise.all(
      links.map(
        async (link) =>
          [
            link,
            await outcome(() =>
              applyPeers(
                link,
                group.filter((one) => one.link === link),
                look,
              ),
            ),
          ] as const,
      ),
    ),
  );
  return group.map(({ link }) => failed.get(link));
}

async function applySysctl(operation: Operation, records: RecordStore): Promise<void> {
  if (operation.op === "sysctl.set") await setSysctl(operation.name, operation.value, records);
  if (operation.op === "sysctl.restore") restoreSysctl(operation.name, records);
}

function ipLine(operation: IpOperation): IpLine {
  switch (operation.op) {
    case "address.add":
      return addressLine("add", operation.address);
    case "address.remove":
      return addressLine("remove", operation.address);
    case "nexthop.replace":
      return nexthopLine("replace", operation.nexthop);
    case "nexthop.remove":
      return nexthopLine("remove", operation.nexthop);
    case "route.add":
      return routeLine("add", operation.route);
    case "route.replace":
      return routeLine("replace", operation.route);
    case "route.remove":
      return routeLine("remove", operation.route);
    case "rule.add":
      return ruleLine("add", operation.rule);
    case "rule.remove":
      return ruleLine("remove", operation.rule);
  }
}

async function inTurn(group: readonly Operation[], one: (operation: Operation) => Promise<void>): Promise<(IsthmusError | undefined)[]> {
  const errors: (IsthmusError | undefined)[] = [];
  for (const operation of group) errors.push(await outcome(() => one(operation)));
  return errors;
}

async function outcome(work: () => Promise<void>): Promise<IsthmusError | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    return asIsthmusError(error, "KernelRefused");
  }
}
