"""The one tree of errors. HTTP statuses are known to `gateway/errors.py` alone.

DialtoneError            code, message for people, retryable
├── BadInput             the caller sent something unusable
│   ├── BadCursor        a stream cursor that cannot be read
│   └── TooLarge         a body, file or field over its limit
├── Unauthenticated      no caller, or a credential that does not hold
├── Forbidden            the caller is known but lacks the scope
│   └── TenantBlocked    an operator lets this tenant start no runs
├── NotFound             unknown, or another tenant's: the two look the same
├── Gone                 was there once: a link that expired or was revoked
├── Conflict             the request contradicts the present state
│   ├── ThreadBusy       a run is active and the policy is `reject`
│   └── KeyReused        an Idempotency-Key came back with another body
├── LimitExceeded        a rate, quota or queue limit; retry later
├── Unavailable          Redis, a worker or a provider is away; retry later
├── ConfigError          config.toml or the environment is wrong; stops the start
├── LeaseLost            another worker owns the run now; stop at once, write nothing
├── RunStopped           ends a run with a reason
│   ├── RunCancelled     somebody asked for it
│   ├── BudgetExceeded   turns, tokens, money, seconds
│   └── Stuck            the agent goes in circles
├── SandboxError         the sandbox failed, not the command in it
│   └── SandboxRefused   no tier holds here and the operator did not allow the host
├── ToolError            goes back to the model as text; never ends the run
└── ModelError           the provider failed
    ├── ModelOverloaded  429, 5xx, stall, cut stream: worth another try
    ├── ContextOverflow  the prompt is too long: compact, then try again
    └── ModelRefused     bad key, bad request, unknown model, content refused
"""

from typing import ClassVar


class DialtoneError(Exception):
    """Base of every failure that has a name. `code` is stable and safe to match on."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after_s: float | None = None, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.details = details
        """Small JSON values that help a program to react, e.g. `limit=`, `field=`."""


class BadInput(DialtoneError):
    code = "bad_input"


class BadCursor(BadInput):
    code = "bad_cursor"


class TooLarge(BadInput):
    code = "too_large"


class Unauthenticated(DialtoneError):
    code = "unauthenticated"


class Forbidden(DialtoneError):
    code = "forbidden"


class TenantBlocked(Forbidden):
    code = "tenant_blocked"


class NotFound(DialtoneError):
    code = "not_found"


class Gone(DialtoneError):
    code = "gone"


class Conflict(DialtoneError):
    code = "conflict"


class ThreadBusy(Conflict):
    code = "thread_busy"


class KeyReused(Conflict):
    code = "idempotency_key_reused"


class LimitExceeded(DialtoneError):
    code = "limit_exceeded"
    retryable = True


class Unavailable(DialtoneError):
    code = "unavailable"
    retryable = True


class ConfigError(DialtoneError):
    code = "bad_config"


class LeaseLost(DialtoneError):
    code = "lease_lost"


class RunStopped(DialtoneError):
    code = "stopped"


class RunCancelled(RunStopped):
    code = "cancelled"


class BudgetExceeded(RunStopped):
    code = "budget_exceeded"


class Stuck(RunStopped):
    code = "stuck"


class SandboxError(DialtoneError):
    code = "sandbox_failed"


class WorkspaceDamaged(SandboxError):
    """The thread's files cannot be had until an operator has mended something."""

    code = "workspace_damaged"


class SandboxRefused(SandboxError):
    code = "sandbox_refused"


class ToolError(DialtoneError):
    """`code` is overridden per instance with one of the typed tool errors, e.g. `not_found`, `ambiguous`."""

    code = "tool_error"

    def __init__(self, message: str, *, kind: str = "tool_error", **details: object) -> None:
        super().__init__(message, retry_after_s=None, **details)
        self.kind = kind


class ModelError(DialtoneError):
    code = "model_failed"


class ModelOverloaded(ModelError):
    code = "model_overloaded"
    retryable = True


class ContextOverflow(ModelError):
    code = "context_overflow"


class ModelRefused(ModelError):
    code = "model_refused"
