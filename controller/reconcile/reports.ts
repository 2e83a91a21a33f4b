/** What agents report, kept in memory only: status, not plan. A node that connects again says everything anew. */
import type { NodeName } from "../../mesh/model/scalars.ts";
import type { AgentReport, ResourceResult } from "../../mesh/model/wire.ts";

export interface NodeReport {
  readonly applied?: AgentReport["applied"];
  readonly kernel?: string;
  readonly wireguard?: AgentReport["wireguard"];
  readonly handshakes?: AgentReport["handshakes"];
  readonly conditions?: AgentReport["conditions"];
  readonly results: ReadonlyMap<string, ResourceResult>;
  readonly observed: ReadonlyMap<string, string>;
}

export interface NodeContact {
  readonly connected: boolean;
  /** Milliseconds since 1970. */
  readonly lastSeen: number;
  readonly version?: string;
  readonly bootId?: string;
}

export interface Reports {
  /** Grows with everything that a status may show, except when a node was last heard. */
  readonly version: number;
  get(node: string): NodeReport | undefined;
  contact(node: string): NodeContact | undefined;
  /** `whole`: the report says everything anew, as the first of a connection does; else changes. */
  merge(node: NodeName, report: AgentReport, whole: boolean): void;
  touch(node: NodeName, contact: NodeContact): void;
  forget(node: string): void;
  /** Nodes that were connected when the controller before this one saved them last. */
  readonly connectedBefore: readonly string[];
  /** Contacts, for saving. */
  contacts(): ReadonlyMap<string, NodeContact>;
}

const NOTHING: NodeReport = { results: new Map(), observed: new Map() };
const MAX_RESULTS = 10_000;

export function createReports(known: ReadonlyMap<string, NodeContact>): Reports {
  const reports = new Map<string, NodeReport>();
  const contacts = new Map<string, NodeContact>([...known].map(([node, contact]) => [node, { ...contact, connected: false }]));
  let version = 0;
  return {
    get version() {
      return version;
    },
    get: (node) => reports.get(node),
    contact: (node) => contacts.get(node),
    contacts: () => contacts,
    connectedBefore: [...known].filter(([, { connected }]) => connected).map(([node]) => node),
    touch: (node, contact) => {
      if (contacts.get(node)?.connected !== contact.connected) version++;
      contacts.set(node, contact);
    },
    forget: (node) => {
      version++;
      reports.delete(node);
      contacts.delete(node);
    },
    merge: (node, report, whole) => {
      version++;
      const before = (whole ? undefined : reports.get(node)) ?? NOTHING;
      const { applied, kernel, wireguard, handshakes, conditions, results, observed } = report;
      reports.set(node, {
        ...before,
        ...(applied === undefined ? {} : { applied }),
        ...(kernel === undefined ? {} : { kernel }),
        ...(wireguard === undefined ? {} : { wireguard }),
        ...(handshakes === undefined ? {} : { handshakes }),
        ...(conditions === undefined ? {} : { conditions }),
        ...(results === undefined ? {} : { results: merged(before.results, results) }),
        ...(observed === undefined ? {} : { observed: merged(before.observed, observed) }),
      });
    },
  };
}

function merged<T>(before: ReadonlyMap<string, T>, changes: Readonly<Record<string, T | null>>): ReadonlyMap<string, T> {
  const after = new Map(before);
  for (const [key, value] of Object.entries(changes)) {
    if (value === null) after.delete(key);
    else if (after.size < MAX_RESULTS || after.has(key)) after.set(key, value);
  }
  return after;
}
