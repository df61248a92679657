"""`python -m modem.worker`: one worker process, started without the Celery command line (half its start time)."""

import sys

from modem.app import app
from workflow.core.config_load import load
from workflow.core.errors import ConfigError
from workflow.core.log import configure
from workflow.core.reports import report_errors


def main() -> int:
    """Works until SIGTERM or Ctrl-C; its runs are handed over then. Exit status 2: the configuration is wrong."""
    try:
        settings = load().settings
    except ConfigError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    configure(settings.log, "modem")
    report_errors(settings.telemetry, component="worker", env=settings.env)
    worker = app.Worker(
        pool="modem.loop:AioPool",
        concurrency=settings.worker.concurrency,
        loglevel=settings.log.level,
        without_mingle=True,
        without_gossip=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main())
