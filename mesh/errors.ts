/**
 * The one table of errors. Every error that leaves a function for a person or a peer is made here, so that a code always
 * has one HTTP status, one exit status and one answer to "is it worth trying again?".
 */

/** `transient`: the same call may work later. `terminal`: it will not until someone changes something. */
export type Retry = "transient" | "terminal";

interface Row {
  readonly http: number;
  /** Exit status of the command line: 1 general, 2 usage, 3 not found, 4 conflict, 5 denied, 6 unreachable, 7 environment. */
  readonly exit: number;
  readonly retry: Retry;
}

const row = (http: number, exit: number, retry: Retry): Row => ({ http, exit, retry });

export const ERRORS = {
  Invalid: row(422, 2, "terminal"),
  BadRequest: row(400, 2, "terminal"),
  UnknownKind: row(404, 2, "terminal"),
  NotFound: row(404, 3, "terminal"),
  AlreadyExists: row(409, 4, "terminal"),
  Conflict: row(409, 4, "transient"),
  Unauthenticated: row(401, 5, "terminal"),
  Forbidden: row(403, 5, "terminal"),
  TokenUnknown: row(401, 5, "terminal"),
  TokenExpired: row(401, 5, "terminal"),
  TokenSpent: row(401, 5, "terminal"),
  TokenMalformed: row(400, 2, "terminal"),
  PinMismatch: row(401, 5, "terminal"),
  NameTaken: row(409, 4, "terminal"),
  NamePattern: row(403, 5, "terminal"),
  CloneDetected: row(409, 4, "terminal"),
  NodeRemoved: row(410, 4, "terminal"),
  CertificateExpired: row(401, 5, "terminal"),
  CertificateRevoked: row(401, 5, "terminal"),
  PoolExhausted: row(507, 4, "terminal"),
  Recovering: row(503, 6, "transient"),
  TooManyMessages: row(429, 6, "transient"),
  Unreachable: row(503, 6, "transient"),
  Timeout: row(504, 6, "transient"),
  ToolMissing: row(500, 7, "terminal"),
  NoWireGuard: row(500, 7, "terminal"),
  NotRoot: row(500, 7, "terminal"),
  PortTaken: row(500, 7, "terminal"),
  DiskFull: row(507, 7, "transient"),
  StoreDamaged: row(500, 7, "terminal"),
  CacheDamaged: row(500, 7, "terminal"),
  FileMode: row(500, 7, "terminal"),
  AlreadyRunning: row(409, 4, "terminal"),
  KernelRefused: row(500, 1, "transient"),
  PlanUnsupported: row(426, 1, "terminal"),
  Internal: row(500, 1, "terminal"),
} as const satisfies Record<string, Row>;

export type ErrorCode = keyof typeof ERRORS;

/** One fault inside an input: where it is, what stands there, and what would be right. */
export interface FieldFault {
  /** Path in the document, e.g. `spec.destinations[3]`. */
  readonly path: string;
  readonly message: string;
  /** The offending value, as it was written; absent when it is secret or missing. */
  readonly value?: unknown;
  /** The nearest valid name, when a name was misspelt. */
  readonly suggestion?: string;
  /** In a set of documents: which one, counted from 0, and of which file. */
  readonly document?: number;
  readonly file?: string;
  /** In a document that is a `List`: which item, counted from 0. */
  readonly item?: number;
}

export interface ErrorDetail {
  /** What the user can do now; one imperative sentence. */
  readonly remedy?: string;
  readonly faults?: readonly FieldFault[];
  readonly cause?: unknown;
}

/** The error of this project. `message` says what and where; `remedy` says what to do. */
export class IsthmusError extends Error {
  override readonly name = "IsthmusError";
  readonly code: ErrorCode;
  readonly remedy: string | undefined;
  readonly faults: readonly FieldFault[];

  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.code = code;
    this.remedy = detail.remedy;
    this.faults = detail.faults ?? [];
  }

  get http(): number {
    return ERRORS[this.code].http;
  }
  get exit(): number {
    return ERRORS[this.code].exit;
  }
  get retry(): Retry {
    return ERRORS[this.code].retry;
  }

  /** The shape that crosses the wire (HTTP bodies, stream messages). Never holds a cause: causes may hold secrets. */
  toJSON(): ErrorBody {
    return {
      code: this.code,
      message: this.message,
      ...(this.remedy === undefined ? {} : { remedy: this.remedy }),
      ...(this.faults.length === 0 ? {} : { faults: this.faults }),
    };
  }
}

export interface ErrorBody {
  readonly code: ErrorCode;
  readonly message: string;
  readonly remedy?: string;
  readonly faults?: readonly FieldFault[];
}

/** Rebuilds the error that a peer sent; anything that is not one becomes `Internal`. */
export function errorFromBody(body: unknown): IsthmusError {
  if (typeof body === "object" && body !== null && "code" in body && "message" in body) {
    const { code, message, remedy, faults } = body as Partial<ErrorBody>;
    if (typeof code === "string" && code in ERRORS && typeof message === "string") {
      return new IsthmusError(code, message, {
        ...(typeof remedy === "string" ? { remedy } : {}),
        ...(Array.isArray(faults) ? { faults } : {}),
      });
    }
  }
  return new IsthmusError("Internal", "the other side answered with something that is not an Isthmus error");
}

/** Wraps whatever was thrown; an `IsthmusError` passes unchanged. */
export function asIsthmusError(thrown: unknown, code: ErrorCode = "Internal"): IsthmusError {
  if (thrown instanceof IsthmusError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new IsthmusError(code, message, { cause: thrown });
}
