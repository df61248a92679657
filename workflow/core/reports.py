"""Reports of errors to Sentry, when a DSN is set: what is logged as an error, with its ids and without secrets."""

import logging
import os
from importlib.metadata import version
from typing import Any

from workflow.core.config import TelemetrySettings
from workflow.core.log import bound
from workflow.core.redact import Redactor, secret_values


def report_errors(settings: TelemetrySettings, *, component: str, env: str) -> None:
    """Sends every ERROR record of this process from now on; nothing happens without a DSN. Call once per process.

    No local variables, request bodies or breadcrumbs are sent: they hold what people and models wrote.
    """
    if settings.sentry_dsn is None or not settings.sentry_dsn.get_secret_value():
        return
    # Optional: 0.3 s of imports that most processes never need.
    import sentry_sdk  # noqa: PLC0415
    from sentry_sdk.integrations.atexit import AtexitIntegration  # noqa: PLC0415
    from sentry_sdk.integrations.dedupe import DedupeIntegration  # noqa: PLC0415
    from sentry_sdk.integrations.excepthook import ExcepthookIntegration  # noqa: PLC0415
    from sentry_sdk.integrations.logging import LoggingIntegration  # noqa: PLC0415

    redact = Redactor(secret_values(os.environ))

    def before_send(event: Any, hint: dict[str, Any]) -> Any:
        event["tags"] = {**(event.get("tags") or {}), **bound(), "component": component}
        return redact.tree(event)

    sentry_sdk.init(
        dsn=settings.sentry_dsn.get_secret_value(),
        environment=env,
        release=f"dialtone@{version('dialtone')}",
        default_integrations=False,
        integrations=[
            LoggingIntegration(level=None, event_level=logging.ERROR),
            ExcepthookIntegration(),
            DedupeIntegration(),
            AtexitIntegration(callback=lambda pending, timeout: None),
        ],
        before_send=before_send,
        include_local_variables=False,
        include_source_context=True,
        max_breadcrumbs=0,
        send_default_pii=False,
        shutdown_timeout=2,
    )
