"""One call to the program inside a remote sandbox (`inside/`): a shell command to run there, the lines it prints.

The first call to a machine brings the program along, compiled and kept there under a name with its version; later
ones only start it. If somebody in there has removed it, the call says so and is made again with it.

What an agent's commands do in there can at most spoil this answer, so nothing of it is believed beyond its shape.
"""

import base64
import binascii
import hashlib
import json
import marshal
import secrets
import shlex
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from workflow.core.errors import SandboxError, ToolError
from workflow.sandboxes.machines import Dropped

MODULES = ("answers", "processes", "jobfiles", "supervisor", "jobs", "workspace", "history", "main")
"""In the order in which they can be loaded."""
INLINE = 48_000
"""A larger payload is uploaded first. As base64, with program and shell, it stays below the 128 KiB that Linux
takes as one argument (MAX_ARG_STRLEN, execve(2))."""
MARSHAL = 2
"""A version of the format that every Python 3 reads and writes the same."""
LONGEST_LINE = 1 << 20
NOISE = 300
"""Characters kept of what is not from our program: usually why it did not start."""
INSTALL = """\
import binascii,marshal,os,sys,zlib
p=sys.argv[2]+sys.implementation.cache_tag
s=marshal.loads(zlib.decompress(binascii.a2b_base64("{sources}")))
c=[(n,compile(t,n,"exec")) for n,t in s]
try:
 os.makedirs(os.path.dirname(p),0o700,True)
 with open(p+str(os.getpid()),"wb") as f: marshal.dump(c,f)
 os.rename(f.name,p)
except OSError: pass
"""
"""Compiles the program, and keeps it for the next calls."""
LOAD = """\
import marshal,sys
try: c=marshal.load(open(sys.argv[2]+sys.implementation.cache_tag,"rb"))
except Exception: sys.exit(sys.argv[3]+" m ")
"""
"""Takes what INSTALL kept, or says that it is not there."""
RUN = """\
for n,o in c: m=sys.modules[n]=type(sys)(n);exec(o,m.__dict__)
m.main(sys.argv[1])"""
Piece = tuple[Literal["stdout", "stderr"], bytes]
FAULTS = ("failed", "not_reading")
"""Kinds of refusal that are not the agent's mistake."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where a remote sandbox keeps things."""

    workdir: str
    """The workspace."""
    state: str
    """Ours, outside the workspace."""


class NotInstalled(SandboxError):
    """The same call has to bring the program along."""


class Call:
    """A request and, line by line, its answer."""

    def __init__(
        self,
        op: str,
        args: Mapping[str, Any],
        *,
        home: Home,
        owner: str,
        payload: bytes = b"",
        staged: str = "",
        quiet: bool = False,
    ) -> None:
        """staged: where the payload was uploaded to; empty when it is short enough to travel along.
        quiet: the call does not count as use of the sandbox."""
        self._nonce = secrets.token_hex(6)
        self._request = {
            "op": op,
            "args": dict(args),
            "nonce": self._nonce,
            "workdir": home.workdir,
            "state": home.state,
            "owner": owner,
            "quiet": quiet,
            "payload": {"at": staged or None, "inline": b"" if staged else payload},
        }
        self._rest = ""
        self._noise = ""
        self._result: Any = None
        self.is_answered = False
        self.signs = 0
        """Lines of our program so far, heartbeats included."""

    def command(self, *, installs: bool) -> str:
        """For any POSIX shell. No `exec`: in some places the shell goes on with other commands.

        installs: brings the program along, 15 KB more and twice the start; else it must be there.
        """
        request = base64.b64encode(marshal.dumps(self._request, MARSHAL)).decode()
        program, version = _program()
        path = shlex.quote(f"{self._request['state']}/program-{version}-")
        return f"python3 -I -S -c '{(program if installs else LOAD) + RUN}' {request} {path} {self._nonce}"

    def take(self, text: str) -> list[Piece]:
        """Takes printed text as it comes, in any pieces; the output that became complete with it.

        Raises: ToolError, SandboxError as the program inside says.
        """
        shown: list[Piece] = []
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > LONGEST_LINE:
            self._rest = ""
        for line in lines:
            nonce, _, rest = line.strip("\r").partition(" ")
            kind, _, content = rest.partition(" ")
            if nonce != self._nonce or self.is_answered:
                self._noise = (self._noise + line + "\n")[:NOISE]
                continue
            self.signs += 1
            if kind == "m":
                raise NotInstalled("the program inside is missing")
            if kind in ("1", "2"):
                shown.append(("stdout" if kind == "1" else "stderr", _bytes(content)))
            elif kind in ("r", "x"):
                self.is_answered = True
                self._result = _json(content)
                if kind == "x":
                    raise _refusal(self._result)
        return shown

    @property
    def result(self) -> Any:
        """What the call gave back. Raises: Dropped when its end did not come; SandboxError when it cannot come."""
        if self.is_answered:
            return self._result
        said = (self._noise + self._rest[:NOISE]).strip()
        if not self.signs and "python3" in said and "not found" in said:
            raise SandboxError("the sandbox has no python3 (3.9 or later); see docs/remote-sandboxes.md")
        raise Dropped(f"the sandbox's answer has no end{': ' + said if said and not self.signs else ''}")


@cache
def _program() -> tuple[str, str]:
    """What installs the program, and its version."""
    package = "workflow.sandboxes.inside"
    sources = [(f"{package}.{name}", files(package).joinpath(f"{name}.py").read_text("utf-8")) for name in MODULES]
    packed = base64.b64encode(zlib.compress(marshal.dumps(sources, MARSHAL), 9)).decode()
    return INSTALL.format(sources=packed), hashlib.sha256(packed.encode()).hexdigest()[:12]


def _bytes(content: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise SandboxError("the sandbox's answer is damaged") from error


def _json(content: str) -> Any:
    try:
        return json.loads(_bytes(content).decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise SandboxError("the sandbox's answer is damaged") from error


def _refusal(found: Any) -> ToolError | SandboxError:
    if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
        return SandboxError("the sandbox's answer is damaged")
    message, kind = str(found.get("message", "")), found["kind"]
    return SandboxError(message) if kind in FAULTS else ToolError(message, kind=kind)
