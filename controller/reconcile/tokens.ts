/** Whether anybody can join with a token. The order is that in which a join is refused (`join/decide.ts`). Pure. */
import type { JoinTokenStatus } from "../../mesh/model/join-token.ts";
import type { Resource } from "../../mesh/model/resources.ts";

type Token = Pick<Resource<"JoinToken">, "spec" | "status">;

export interface TokenSurroundings {
  /** Milliseconds since 1970. */
  readonly now: number;
  /** Of the store. */
  readonly epoch: number;
  readonly hasSite: (name: string) => boolean;
}

export function tokenState({ spec, status }: Token, { now, epoch, hasSite }: TokenSurroundings): NonNullable<JoinTokenStatus["state"]> {
  if (status?.revoked === true) return "Revoked";
  if (status?.epoch !== epoch) return "Void";
  if (Date.parse(spec.expires) <= now) return "Expired";
  if (status.used >= spec.uses) return "Spent";
  return hasSite(spec.site) ? "Active" : "SiteDeleted";
}
