"""url_expose: a link under which a server in the sandbox can be opened in a browser."""

import math
from typing import cast

from pydantic import Field

from workflow.core.errors import ToolError
from workflow.core.events import Effect, PreviewExposed
from workflow.core.ports import Previews
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput

MIN_PORT = 1024
_PAUSE_S = 0.2
# Waits until something accepts connections; `bash` opens /dev/tcp by itself, so no program is needed.
_LISTENS = """
for ((i = 0; i < $2; i++)); do
  for host in 127.0.0.1 ::1; do
    (exec 3<>"/dev/tcp/$host/$1") 2>/dev/null && exit 0
  done
  sleep "$3"
done
exit 1
"""


class ExposeArgs(ToolArgs):
    port: int = Field(ge=MIN_PORT, le=65_535)
    path: str = Field("/", max_length=1000, description="where the link points to")
    ttl_s: float = Field(3600.0, ge=60, le=86_400)


class UrlExpose(Tool[ExposeArgs]):
    name = "url_expose"
    effect = Effect.IDEMPOTENT
    changes_files = False
    description = (
        "Makes a temporary link to a server that runs in the sandbox, for the person to open. Start the server first "
        "with bash(background=true)."
    )

    def __init__(self, *, wait_s: float = 5.0) -> None:
        """wait_s: how long a server may take to start listening."""
        self._wait_s = wait_s

    async def run(self, args: ExposeArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `previews_off`, `not_listening`, `bad_path`."""
        previews = cast(Previews | None, context.services.get("previews"))
        if previews is None:
            raise ToolError(
                "Links to the sandbox are not available here. Tell the person how to start the program themselves.",
                kind="previews_off",
            )
        if not args.path.startswith("/") or not args.path.isascii() or not args.path.isprintable() or " " in args.path:
            raise ToolError("`path` must start with / and hold no blanks, e.g. /docs.", kind="bad_path")
        tries = str(math.ceil(self._wait_s / _PAUSE_S))
        checked = await context.sandbox.exec(
            ["bash", "--noprofile", "--norc", "-c", _LISTENS, "bash", str(args.port), tries, str(_PAUSE_S)],
            timeout_s=self._wait_s + 10,
        )
        if checked.exit_code != 0:
            raise ToolError(
                f"Nothing listens on port {args.port} in the sandbox after {self._wait_s:g} s. Start the server with "
                "bash(background=true), look at its output with bash_output, and use the port that it names.",
                kind="not_listening",
            )
        link = await previews.expose(context.run_id, port=args.port, path=args.path, ttl_s=args.ttl_s)
        about = {"port": link.port, "url": link.url, "expires_at": link.expires_at, "preview_id": link.id}
        return ToolOutput(
            text=f"{link.url}\nThe link works for {args.ttl_s / 60:g} minutes, as long as the server runs. Give it to "
            "the person in your answer.",
            data=about,
            events=(context.event(PreviewExposed, **about),),
        )
