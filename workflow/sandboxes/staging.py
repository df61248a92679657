"""The command line that starts a program as another user, who can reach the folders it needs.

Root's own folders are closed to others (`/root` is 0700), yet a project checked out there is the usual case. In a
mount namespace of the new process alone, such a folder is covered by an empty one in which only the wanted paths
exist; the host sees nothing of it.
"""

import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from workflow.core.errors import SandboxError

SCRIPT = r"""
set -e
umask 022
fd=3 held=
for path in $1; do
  while [ -e "/proc/self/fd/$fd" ]; do fd=$((fd+1)); done
  [ "$fd" -le 9 ] || { echo "no descriptor below 10 is free" >&2; exit 1; }
  eval "exec $fd<\"\$path\""
  held="$held $fd:$path"
done
for path in $2; do mount -t tmpfs -o mode=755,size=64k dialtone "$path"; done
mkdir -p $1
for one in $held; do
  mount --no-canonicalize --bind "/proc/self/fd/${one%%:*}" "${one#*:}"
  eval "exec ${one%%:*}<&-"
done
shift 2
exec "$@"
"""
"""Holds open what is wanted while it is covered. Each program that this starts takes a thirtieth of the time in which
a sandbox is made."""


def as_user(uid: int, needed: Iterable[Path]) -> tuple[str, ...]:
    """What to put before a command so that it runs as `uid` (and that group, no others), `needed` folders in reach.

    Raises: SandboxError when util-linux (setpriv, unshare, mount) is missing.
    """
    setpriv = _tool("setpriv")
    drop = (setpriv, f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all", "--")
    closed = {path: barrier for path in needed if (barrier := _barrier(path)) is not None}
    if not closed:
        return drop
    for path in closed:
        if len(str(path).split()) != 1:
            raise SandboxError(f"{path} is closed to other users and has a space in its name; open or move it")
    unshare = (_tool("unshare"), "--mount", "--propagation", "private", "--")
    barriers = sorted({str(barrier) for barrier in closed.values()})
    shell = ("/bin/sh", "-c", SCRIPT, "stage", " ".join(map(str, closed)), " ".join(barriers))
    return (*unshare, *shell, *drop)


def _barrier(path: Path) -> Path | None:
    """The topmost folder on the way to `path`, itself included, that other users may not enter."""
    for folder in (*reversed(path.parents), path):
        if not folder.stat().st_mode & 0o001:
            return None if folder == path else folder
    return None


@cache
def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SandboxError(f"{name} (util-linux) is not installed")
    return found
