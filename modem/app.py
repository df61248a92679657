"""The Celery app. A message carries `{run_id}` and is only a hint: the run record in Redis is the truth."""

from typing import Any

from celery import Celery

from modem import keys
from modem.broker import Broker
from workflow.core.config import Settings
from workflow.core.config_load import load

POOL = "modem.loop:AioPool"


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's configuration. Each value that differs from the default has its reason in docs/decisions/0002."""
    broker = Broker.of(settings)
    return {
        "broker_url": broker.url,
        "broker_transport_options": broker.options,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A full Redis refuses what kombu writes; the worker waits for room instead of ending.
        "broker_channel_error_retry": True,
        "task_ignore_result": True,
        # A hint is done when it was heard. Late acknowledgement would keep it open for the length of a run, and
        # kombu 5.7 ends the worker when it loses Redis while messages are open (docs/decisions/0002).
        "task_acks_late": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": keys.HINTS,
        "worker_prefetch_multiplier": 1,
        # This alone holds `worker.concurrency`: it counts what is at work, and not only what is not acknowledged.
        "worker_disable_prefetch": True,
        "worker_pool": POOL,
        "worker_concurrency": settings.worker.concurrency,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": settings.worker.soft_shutdown_s,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "imports": ["modem.tasks.runs"],
    }


app = Celery("modem", set_as_current=True)
app.add_defaults(lambda: celery_settings(load().settings))
