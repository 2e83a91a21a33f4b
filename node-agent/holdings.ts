/**
 * What the agent holds of the controller's plan, as a value, and how each message changes it. No I/O and no clock, so that
 * every order of messages can be tried in a property test.
 *
 * Nothing here ever empties a plan by accident (I1): a controller that recovers, or that knows less than this agent has
 * seen, may add and change but takes nothing away.
 */
import { applyFill, applyPutDelete, bucketHashes, createView, viewHash, type ViewState } from "../mesh/compile/views.ts";
import { type AgentMessage, type ControllerMessage, PLAN_FORMAT, type Position } from "../mesh/model/wire.ts";

export interface HeldView {
  readonly r: number;
  readonly view: ViewState;
}

export interface Holdings {
  /** The furthest position that this agent ever saw. */
  readonly seen: Position | undefined;
  readonly views: ReadonlyMap<string, HeldView>;
  /** Views whose content is on its way: the plan is half of two until they are here. */
  readonly awaiting: ReadonlySet<string>;
  /** The controller's word deletes nothing now. */
  readonly guarded: boolean;
  /** Views that a guarded controller did not name: dropped once it is whole again and still does not name them. */
  readonly unnamed: ReadonlySet<string>;
}

export interface Received {
  readonly holdings: Holdings;
  readonly send: readonly AgentMessage[];
  readonly changed: boolean;
}

export const NOTHING_HELD: Holdings = { seen: undefined, views: new Map(), awaiting: new Set(), guarded: false, unnamed: new Set() };

/** Views as a join's answer carries them. */
export function holdingsOf(position: Position, views: Readonly<Record<string, Readonly<Record<string, unknown>>>>): Holdings {
  return {
    ...NOTHING_HELD,
    seen: position,
    views: new Map(Object.entries(views).map(([id, entries]) => [id, { r: position.revision, view: createView(Object.entries(entries)) }])),
  };
}

/** Whether `b` stands behind `a`: another store, an older epoch, or an older revision. */
export function isBehind(a: Position | undefined, b: Position): boolean {
  if (a === undefined) return false;
  if (a.lineage !== b.lineage) return true;
  return b.epoch < a.epoch || (b.epoch === a.epoch && b.revision < a.revision);
}

/** The first message on a connection. */
export function helloOf(holdings: Holdings, who: { node: string; version: string; bootId: string; machineId: string }): AgentMessage {
  return {
    t: "hello",
    node: who.node as Extract<AgentMessage, { t: "hello" }>["node"],
    format: PLAN_FORMAT,
    version: who.version,
    bootId: who.bootId,
    machineId: who.machineId,
    ...(holdings.seen === undefined ? {} : { seen: holdings.seen }),
    views: Object.fromEntries([...holdings.views].map(([id, held]) => [id, { r: held.r, h: viewHash(held.view) }])),
  };
}

export function beatOf(holdings: Holdings): AgentMessage {
  return { t: "beat", views: Object.fromEntries([...holdings.views].map(([id, held]) => [id, viewHash(held.view)])) };
}

/** Folds one message of the controller in. Messages that do not concern the plan change nothing. */
export function receive(holdings: Holdings, message: ControllerMessage): Received {
  switch (message.t) {
    case "hello":
      return receiveHello(holdings, message);
    case "delta": {
      const held = holdings.views.get(message.v);
      // A change of a view that was never filled cannot be applied: ask for the content.
      if (held === undefined) return { holdings, send: [bucketsOf(holdings, message.v)], changed: false };
      const view = applyPutDelete(held.view, Object.entries(message.p ?? {}), holdings.guarded ? [] : (message.d ?? []));
      return changedTo(holdings, message.v, { r: Math.max(held.r, message.r), view }, message);
    }
    case "fill": {
      const before = holdings.views.get(message.v)?.view ?? createView();
      const put = Object.entries(message.p);
      const view = holdings.guarded ? applyPutDelete(before, put) : applyFill(before, message.b, put);
      return changedTo(holdings, message.v, { r: message.r, view }, message);
    }
    case "views": {
      const missing = message.add.filter((id) => !holdings.views.has(id));
      const changing = (message.change ?? []).filter((id) => holdings.views.has(id));
      const unnamed = new Set([...holdings.unnamed].filter((id) => !message.add.includes(id)));
      if (holdings.guarded) {
        return {
          holdings: {
            ...holdings,
            awaiting: new Set([...holdings.awaiting, ...missing, ...changing]),
            unnamed: new Set([...unnamed, ...message.drop]),
          },
          send: [],
          changed: false,
        };
      }
      const views = new Map([...holdings.views].filter(([id]) => !message.drop.includes(id)));
      const awaiting = new Set([...holdings.awaiting, ...missing, ...changing].filter((id) => !message.drop.includes(id)));
      return { holdings: { ...holdings, views, awaiting, unnamed }, send: [], changed: views.size !== holdings.views.size };
    }
    case "want":
      return { holdings, send: [bucketsOf(holdings, message.v)], changed: false };
    case "removed":
    case "refused":
    case "ask":
      return { holdings, send: [], changed: false };
    default:
      message satisfies never;
      return { holdings, send: [], changed: false };
  }
}

function receiveHello(holdings: Holdings, hello: Extract<ControllerMessage, { t: "hello" }>): Received {
  // A list without the mesh is an empty plan, whatever the reason: nobody is without peers, network and self.
  const succeeds = holdings.seen !== undefined && hello.supersedes?.includes(holdings.seen.lineage) === true;
  const guarded = hello.recovering || (!succeeds && isBehind(holdings.seen, hello.at)) || hello.views.length === 0;
  const named = new Set(hello.views);
  const missing = hello.views.filter((id) => !holdings.views.has(id));
  const stale = (hello.stale ?? []).filter((id) => named.has(id) && holdings.views.has(id));
  const views = guarded ? holdings.views : new Map([...holdings.views].filter(([id]) => named.has(id)));
  const unnamed = guarded ? new Set([...holdings.views.keys()].filter((id) => !named.has(id))) : new Set<string>();
  const seen = guarded && holdings.seen !== undefined ? holdings.seen : hello.at;
  return {
    holdings: { seen, views, awaiting: new Set([...missing, ...stale]), guarded, unnamed },
    send: [],
    changed: views.size !== holdings.views.size,
  };
}

/** `r` is what the controller said: a view that is held from before a restore may carry a higher one. */
function changedTo(holdings: Holdings, id: string, held: HeldView, { r, s }: { readonly r: number; readonly s?: string | undefined }): Received {
  const { seen } = holdings;
  const views = new Map(holdings.views).set(id, held);
  const awaiting = new Set([...holdings.awaiting].filter((one) => one !== id));
  const further =
    seen === undefined || holdings.guarded || r <= seen.revision
      ? seen
      : { lineage: seen.lineage, epoch: seen.epoch, revision: r, ...(s === undefined ? {} : { seal: s }) };
  return { holdings: { ...holdings, seen: further, views, awaiting }, send: [], changed: true };
}

/** Asks for what the agent lacks of a view. */
export function bucketsOf({ views }: Holdings, id: string): AgentMessage {
  return { t: "buckets", v: id, h: bucketHashes(views.get(id)?.view ?? createView()) };
}

/** A copy of the views with a proposed change (`diff`), and views added or dropped. */
export function proposed(holdings: Holdings, change: ProposedChange): ReadonlyMap<string, ReadonlyMap<string, unknown>> {
  const views = new Map<string, ReadonlyMap<string, unknown>>([...holdings.views].map(([id, held]) => [id, held.view.data]));
  for (const id of change.drop ?? []) views.delete(id);
  for (const [id, one] of Object.entries(change.views ?? {})) {
    views.set(id, applyPutDelete(createView(views.get(id) ?? []), Object.entries(one.put ?? {}), one.delete ?? []).data);
  }
  return views;
}

/** Body of `ask` `diff`. The content of a view that is new to the node stands in `views` too. */
export interface ProposedChange {
  readonly views?: Readonly<Record<string, { readonly put?: Readonly<Record<string, unknown>>; readonly delete?: readonly string[] }>>;
  readonly drop?: readonly string[];
}

/** Data of every view, as `parsePlan` takes it. */
export function viewData(holdings: Holdings): ReadonlyMap<string, ReadonlyMap<string, unknown>> {
  return new Map([...holdings.views].map(([id, held]) => [id, held.view.data]));
}
