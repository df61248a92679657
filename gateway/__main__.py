"""`python -m gateway`: one process of the HTTP server. With `gateway.processes` > 1 several may share the port."""

import sys

from gateway.app import create_app
from gateway.server import serve
from workflow.core.config_load import load
from workflow.core.errors import ConfigError
from workflow.core.log import configure
from workflow.core.memory import keep_loaded
from workflow.core.reports import report_errors


def main() -> int:
    """Serves until SIGTERM or Ctrl-C. Exit status 2: the configuration is wrong."""
    try:
        loaded = load()
        settings = loaded.settings
        configure(settings.log, "gateway")
        report_errors(settings.telemetry, component="gateway", env=settings.env)
        app = create_app(settings, loaded)
        keep_loaded()
        serve(app, settings.gateway)
    except ConfigError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
