"""All errors of the library, in one tree.

Always true: every class has a stable ``code``, whether a retry can help (``retryable``) and the
HTTP status of a response that reports it (``http_status``). A message says what is wrong, with
what, and what to do; it never contains a key or a provider's raw text.

::

    TokenwireError
    ├── InputError                  the caller's mistake: an invalid value, shape or size
    │   ├── ConfigError             a setting is missing or contradicts another
    │   ├── LimitError              a named limit was exceeded
    │   │   └── LogLimitError       a run's log reached its bound
    │   ├── UnknownModelError       no provider or model of that name
    │   └── KeyReusedError          an idempotency key was reused with another body
    ├── AccessError                 the caller lacks permission
    │   ├── NotAuthenticatedError   no key, or a wrong one
    │   └── ForbiddenError          the origin, host or principal is not allowed
    │       └── RoleError           the principal lacks the role that the request needs
    ├── NotFoundError               no such run, thread or stream (or another principal's)
    ├── GoneError                   it existed; its records have expired
    ├── CursorError                 a cursor of another run or branch, or beyond the tail
    ├── ConflictError               not possible in the present state (also with the codes
    │                               ``history_conflict`` and ``thread_busy``)
    ├── BusyError                   over a quota or the admission limit; retry later
    ├── FramingError                bytes that violate their wire's framing
    ├── OrderError                  an event that may not follow its predecessor
    ├── ProviderError               the provider rejected the request or failed
    │   ├── AuthenticationError     the provider rejected the API key
    │   ├── PermissionDeniedError   the key may not use this model
    │   ├── RateLimitError          too many requests (``retry_after``: seconds, if given)
    │   ├── OverloadedError         the provider is overloaded or down
    │   ├── BadRequestError         the provider rejected the request's content
    │   ├── ContextOverflowError    the conversation is longer than the model's context
    │   ├── ContentFilterError      a filter blocked the request or the answer
    │   ├── ModelNotFoundError      the provider has no such model
    │   ├── ProtocolError           a response that is not in the expected wire
    │   ├── NetworkError            no connection, or it was lost
    │   ├── TruncatedError          the stream ended without its terminal marker
    │   └── DeadlineError           a deadline passed (``which``: connect, first_event, ...)
    ├── ServerError                 a tokenwire server failed, as a client sees it
    │   ├── ServerUnavailableError  no connection to the server, or it was lost
    │   └── ServerProtocolError     a response that is not a tokenwire server's
    ├── ToolError                   a tool could not run or did not finish
    ├── StartRefusedError           the application refused a run before it began
    ├── CallRefusedError            the application refused a tool call
    ├── HookError                   a function of the application, called by a run, failed
    ├── AgentError                  an agent failed
    │   ├── AgentChangedError       a run was started with another version of its agent
    │   ├── StepError               a step of an agent raised an exception
    │   └── ReplayError             an agent that was restarted took another path than before
    ├── LogError                    the store failed
    │   ├── StoreFullError          no space left; old records stay readable
    │   ├── StoreUnavailableError   the store does not respond
    │   ├── StoreDamagedError       stored bytes fail their check
    │   └── FencedError             another owner took over this run; stop writing
    └── CancelledRunError           a command cancelled the run
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "AccessError",
    "AgentChangedError",
    "AgentError",
    "AuthenticationError",
    "BadRequestError",
    "BusyError",
    "CallRefusedError",
    "CancelledRunError",
    "ConfigError",
    "ConflictError",
    "ContentFilterError",
    "ContextOverflowError",
    "CursorError",
    "DeadlineError",
    "FencedError",
    "ForbiddenError",
    "FramingError",
    "GoneError",
    "HookError",
    "InputError",
    "KeyReusedError",
    "LimitError",
    "LogError",
    "LogLimitError",
    "ModelNotFoundError",
    "NetworkError",
    "NotAuthenticatedError",
    "NotFoundError",
    "OrderError",
    "OverloadedError",
    "PermissionDeniedError",
    "ProtocolError",
    "ProviderError",
    "RateLimitError",
    "ReplayError",
    "RoleError",
    "ServerError",
    "ServerProtocolError",
    "ServerUnavailableError",
    "StartRefusedError",
    "StepError",
    "StoreDamagedError",
    "StoreFullError",
    "StoreUnavailableError",
    "TokenwireError",
    "ToolError",
    "TruncatedError",
    "UnknownModelError",
]


class TokenwireError(Exception):
    """The root. ``message`` (and ``str(error)``) is safe to show to the person who made the
    request; ``details`` are facts for programs, as JSON values."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        #: Facts for programs (JSON values): the limit's name, the field's path, and so on.
        self.details = details


class InputError(TokenwireError):
    """The caller's mistake: an invalid value, shape or size."""

    code = "bad_request"
    http_status = 400


class ConfigError(InputError):
    """A setting is missing or contradicts another."""

    code = "bad_config"


class LimitError(InputError):
    """A named limit was exceeded; ``details`` has ``limit`` and ``most``."""

    code = "limit_exceeded"
    http_status = 413


class LogLimitError(LimitError):
    """A run's log reached its bound of events or bytes; the run ends with this error."""

    code = "log_limit"


class UnknownModelError(InputError):
    """No provider or model of that name."""

    code = "unknown_model"


class KeyReusedError(InputError):
    """An idempotency key was reused with another body."""

    code = "idempotency_key_reused"
    http_status = 422


class AccessError(TokenwireError):
    """The caller lacks permission."""

    code = "access_denied"
    http_status = 403


class NotAuthenticatedError(AccessError):
    """No key, or a wrong one."""

    code = "not_authenticated"
    http_status = 401


class ForbiddenError(AccessError):
    """The origin, host or principal is not allowed."""

    code = "forbidden"


class RoleError(ForbiddenError):
    """The principal lacks the role that the request needs; ``details`` has ``role``."""

    code = "role_required"


class NotFoundError(TokenwireError):
    """No such run, thread, stream, approval, tool call, ...; ``details['what']`` names the kind.
    What belongs to another principal raises the same error."""

    code = "unknown_run"
    http_status = 404

    def __init__(self, message: str, *, what: str = "run", **details: Any) -> None:
        super().__init__(message, what=what, **details)


class GoneError(TokenwireError):
    """It existed; its records have expired or were deleted."""

    code = "gone"
    http_status = 410


class CursorError(TokenwireError):
    """A cursor of another run, of another branch, or beyond the tail."""

    code = "bad_cursor"
    http_status = 400


class ConflictError(TokenwireError):
    """The operation is not possible in the present state of the run."""

    code = "conflict"
    http_status = 409


class BusyError(TokenwireError):
    """Over a quota or the admission limit; ``details['retry_after']`` in seconds."""

    code = "busy"
    retryable = True
    http_status = 429


class FramingError(TokenwireError):
    """Bytes that violate their wire's framing, or a frame over its limit."""

    code = "bad_framing"
    http_status = 502


class OrderError(TokenwireError):
    """An event that may not follow its predecessor; ``details['rule']`` names the rule."""

    code = "bad_order"


class ProviderError(TokenwireError):
    """The provider rejected the request or failed."""

    code = "provider_error"
    http_status = 502

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        should_retry: bool | None = None,
        provider_code: str | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message, **details)
        #: HTTP status of the provider's response, if there was one.
        self.status = status
        #: Seconds to wait before a retry, as the provider gave them.
        self.retry_after = retry_after
        #: The provider's id of the request, for its support.
        self.request_id = request_id
        #: The provider's own advice (``x-should-retry``); overrides ``retryable``.
        self.should_retry = should_retry
        #: The provider's own error code, unchanged.
        self.provider_code = provider_code


class AuthenticationError(ProviderError):
    """The provider rejected the API key."""

    code = "provider_auth"


class PermissionDeniedError(ProviderError):
    """The key may not use this model."""

    code = "provider_permission"


class RateLimitError(ProviderError):
    """Too many requests; ``retry_after`` in seconds, if the provider gave it."""

    code = "rate_limited"
    retryable = True
    http_status = 429


class OverloadedError(ProviderError):
    """The provider is overloaded or down."""

    code = "overloaded"
    retryable = True
    http_status = 503


class BadRequestError(ProviderError):
    """The provider rejected the request's content."""

    code = "provider_bad_request"
    http_status = 400


class ContextOverflowError(BadRequestError):
    """The conversation is longer than the model's context."""

    code = "context_overflow"


class ContentFilterError(BadRequestError):
    """A filter blocked the request or the answer."""

    code = "content_filter"


class ModelNotFoundError(ProviderError):
    """The provider has no such model."""

    code = "model_not_found"
    http_status = 404


class ProtocolError(ProviderError):
    """A response that is not in the expected wire: HTML, invalid JSON, an impossible order."""

    code = "protocol_error"


class NetworkError(ProviderError):
    """No connection, or it was lost."""

    code = "network"
    retryable = True


class TruncatedError(ProviderError):
    """The stream ended without its terminal marker."""

    code = "truncated"
    retryable = True


class DeadlineError(ProviderError):
    """A deadline passed; ``which`` is ``connect``, ``first_event``, ``idle``, ``keep_alive`` or
    ``total``."""

    code = "timeout"
    retryable = True
    http_status = 504

    def __init__(self, message: str, *, which: str, seconds: float, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.which = which
        self.seconds = seconds


class ServerError(TokenwireError):
    """A tokenwire server failed, as a client sees it; ``details['status']`` is its HTTP status."""

    code = "server_error"
    http_status = 502


class ServerUnavailableError(ServerError):
    """No connection to the server, or it was lost; ``details['retry_after']`` in seconds, if the
    server gave it."""

    code = "server_unavailable"
    retryable = True
    http_status = 503


class ServerProtocolError(ServerError):
    """A response that is not a tokenwire server's: another format, an impossible order."""

    code = "server_protocol"


class ToolError(TokenwireError):
    """A tool could not run or did not finish."""

    code = "tool_error"


class StartRefusedError(TokenwireError):
    """The application refused a run before it began. ``status``: of the HTTP response, 400 to 599;
    ``code``: for programs; ``retry_after``: seconds."""

    code = "start_refused"
    http_status = 403

    def __init__(
        self,
        message: str,
        *,
        status: int = 403,
        code: str = "start_refused",
        retry_after: float | None = None,
        **details: Any,
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"the status of a refusal must be from 400 to 599, not {status!r}")
        if retry_after is not None:
            details["retry_after"] = retry_after
        super().__init__(message, **details)
        self.code = code  # type: ignore[misc]
        self.http_status = status  # type: ignore[misc]
        self.retry_after = retry_after


class CallRefusedError(TokenwireError):
    """The application refused a tool call; the model sees the message as the tool's error."""

    code = "denied"
    http_status = 403


class HookError(TokenwireError):
    """A function of the application that a run calls (``before_start``, ``before_tool``,
    ``after_tool``) failed or did not finish in time. The server's log has the exception."""

    code = "hook_failed"


class AgentError(TokenwireError):
    """An agent failed; its exception is in the server's log."""

    code = "agent_failed"
    http_status = 500


class AgentChangedError(AgentError):
    """The run was started with another version of its agent."""

    code = "agent_changed"
    http_status = 409


class StepError(AgentError):
    """A step of an agent raised an exception; the message is that exception's."""

    code = "step_failed"


class ReplayError(AgentError):
    """An agent that was run again after a crash asked for other operations than before."""

    code = "replay_diverged"


class LogError(TokenwireError):
    """The store failed."""

    code = "store_error"
    http_status = 503


class StoreFullError(LogError):
    """No space left in the store; old records stay readable."""

    code = "store_full"
    retryable = True


class StoreUnavailableError(LogError):
    """The store does not respond."""

    code = "store_unavailable"
    retryable = True


class StoreDamagedError(LogError):
    """Stored bytes fail their check and are not served."""

    code = "store_damaged"


class FencedError(LogError):
    """Another owner took over this run; ``details['epoch']`` is the newer epoch. Stop writing."""

    code = "fenced"


class CancelledRunError(TokenwireError):
    """A command cancelled the run."""

    code = "cancelled"
    http_status = 409
