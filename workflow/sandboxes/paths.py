"""Where a path given by an agent points to, before any file system is asked."""

import os
import posixpath
import re

from workflow.core.errors import ToolError
from workflow.sandboxes.base import WORKDIR


def relative(path: str, *, workdir: str = WORKDIR) -> str:
    """`path` relative to the workspace root, normalised, `.` for the root itself.

    Only the text is looked at: symlinks are the provider's business.
    Raises: ToolError with kind `outside_workspace` (absolute elsewhere, or `..` above the root) or `bad_path`.
    """
    if "\0" in path:
        raise ToolError("a path cannot hold a NUL byte", kind="bad_path", path=path)
    if not is_encodable(path):
        raise ToolError("a path cannot hold half of a surrogate pair", kind="bad_path")
    clean = posixpath.normpath(path or ".")
    if clean.startswith("/"):
        # normpath keeps exactly two leading slashes; POSIX lets them mean something else, Linux does not.
        clean = "/" + clean.lstrip("/")
        if clean != workdir and not clean.startswith(f"{workdir.rstrip('/')}/"):
            raise outside(path)
        clean = posixpath.relpath(clean, workdir)
    if clean == ".." or clean.startswith("../"):
        raise outside(path)
    return clean


def is_encodable(text: str) -> bool:
    """False for text that no name, argument or script can be; Python's stand-ins for odd bytes are fine."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def outside(path: str) -> ToolError:
    """The refusal for a path that leaves the workspace."""
    return ToolError(f"{path} is outside the workspace", kind="outside_workspace", path=path)


def missing(path: str) -> ToolError:
    """The refusal for a path where nothing is."""
    return ToolError(f"{path} does not exist", kind="file_missing", path=path)


_NOT_UTF8 = re.compile("[\ud800-\udfff]")
"""Python's stand-ins for bytes of a name that are no UTF-8."""


def readable(path: str) -> str:
    """`path` as text that can be written as UTF-8: what cannot is shown as U+FFFD."""
    return _NOT_UTF8.sub("\ufffd", path)


def is_below(path: str, folder: str) -> bool:
    """True if `path` is `folder` or inside it; both as `relative` gives them."""
    return folder == "." or path == folder or path.startswith(f"{folder}/")
