/**
 * The long-running parts, reached only from here and only when their command is given: `--help` and `get` load none of
 * them. The types say what this command line hands over; the parts' own types must take it.
 */

export interface AgentPlaces {
  readonly data: string;
  readonly run: string;
}

export interface RunAgentOptions extends AgentPlaces {
  readonly logLevel: string;
  readonly signal: AbortSignal;
}

export interface JoinCommandOptions extends AgentPlaces {
  /** Text of the token; never in argv of another process, never logged. */
  readonly token: string;
  readonly name?: string | undefined;
  readonly endpoints: readonly string[];
  readonly advertise: readonly string[];
  /** Stay in the foreground although systemd runs. */
  readonly foreground: boolean;
  /** Write what networkd, NetworkManager and firewalls need. */
  readonly hostConfig: boolean;
  readonly log: (line: string) => void;
  readonly signal: AbortSignal;
}

export interface LeaveCommandOptions extends AgentPlaces {
  readonly force: boolean;
  readonly log: (line: string) => void;
  readonly signal: AbortSignal;
}

export interface CleanupCommandOptions extends AgentPlaces {
  readonly log: (line: string) => void;
  readonly signal: AbortSignal;
}

export interface RunControllerOptions {
  readonly data: string;
  readonly listen: string;
  readonly advertise: readonly string[];
  readonly socket: string;
  readonly logLevel: string;
  readonly signal: AbortSignal;
}

export interface RestoreControllerOptions {
  readonly data: string;
  /** The backup's bytes. */
  readonly backup: Buffer;
}
