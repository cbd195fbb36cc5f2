/* The one error class: a stable code, a message that may be shown, and whether trying again helps. */

export class TokenwireError extends Error {
  override name = "TokenwireError";
  constructor(
    readonly code: string,
    message: string,
    readonly status = 0,
    readonly retryable = false,
    readonly retryAfter?: number,
    /** Why, in a word, where the server says it: `run_ended`, `expired`, ... */
    readonly reason?: string,
  ) {
    super(message);
  }
}

/** Whether the server has said no: asking again brings the same. */
export function isFatal(error: TokenwireError): boolean {
  return error.status >= 400 && !isPassing(error.status);
}

/** Whether another try may bring another answer. */
function isPassing(status: number): boolean {
  return status === 408 || status === 429 || status >= 500;
}

/** What was thrown, as an error of ours: what is not one yet is a failure of the network. */
export function asError(error: unknown): TokenwireError {
  if (error instanceof TokenwireError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new TokenwireError("network", `no connection to the server (${message})`, 0, true);
}

/** The error that a response with a bad status tells. Reads at most its first 16 KiB. */
export async function errorOf(response: Response): Promise<TokenwireError> {
  const { status } = response;
  const message = `the server answered ${status} ${response.statusText}`.trim();
  const text = (await response.text().catch(() => "")).slice(0, 16384);
  const passing = isPassing(status);
  return errorIn(text, `http_${status}`, message, status, passing, retryAfter(response));
}

/** The error that JSON describes: ours, or that of another server or proxy. */
export function errorIn(
  text: string,
  code: string,
  message: string,
  status = 0,
  retryable = false,
  after?: number,
): TokenwireError {
  let reason: string | undefined;
  try {
    const told = JSON.parse(text) as Record<string, unknown>;
    const inner = (told.error ?? told) as Record<string, unknown>;
    if (typeof inner === "string") message = inner;
    else {
      if (typeof inner.code === "string") code = inner.code;
      if (typeof inner.reason === "string") reason = inner.reason;
      if (typeof inner.message === "string") message = inner.message;
      else if (typeof told.detail === "string") message = told.detail;
      retryable ||= !status && inner.retryable === true;
    }
  } catch {
    // Not JSON: a proxy's page. The status says enough.
  }
  return new TokenwireError(code, message.slice(0, 500), status, retryable, after, reason);
}

/** `Retry-After` in milliseconds, from seconds or a date. */
export function retryAfter(response: Response): number | undefined {
  const header = response.headers.get("retry-after");
  if (!header) return undefined;
  const seconds = Number(header);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(header) - Date.now();
  return ms >= 0 ? ms : undefined;
}
