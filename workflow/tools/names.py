"""Which tool a model meant by a name that is not quite right."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

ALIASES: dict[str, str] = {
    "apply_patch": "multi_edit",
    "ask": "ask_person",
    "ask_user": "ask_person",
    "cat": "file_read",
    "create_file": "files_creation",
    "edit": "file_edit",
    "edit_file": "file_edit",
    "execute_bash": "bash",
    "execute_command": "bash",
    "expose_port": "url_expose",
    "fetch": "web_fetch",
    "find": "glob",
    "list_dir": "ls",
    "list_directory": "ls",
    "list_files": "ls",
    "multiedit": "multi_edit",
    "open": "file_read",
    "plan": "job_plan",
    "read": "file_read",
    "read_file": "file_read",
    "replace": "file_edit",
    "ripgrep": "grep",
    "run": "bash",
    "run_command": "bash",
    "run_shell_command": "bash",
    "search": "grep",
    "search_files": "grep",
    "shell": "bash",
    "str_replace": "file_edit",
    "str_replace_editor": "file_edit",
    "task_tracker": "job_plan",
    "terminal": "bash",
    "todo": "todo_write",
    "todos": "todo_write",
    "todowrite": "todo_write",
    "update_plan": "job_plan",
    "view": "file_read",
    "view_file": "file_read",
    "websearch": "web_search",
    "webfetch": "web_fetch",
    "write": "files_creation",
    "write_file": "files_creation",
    "write_todos": "todo_write",
}
"""What other programs call our tools. They only lead to a hint: their arguments differ from ours."""

_FIRST_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_PREFIX = re.compile(r"^(?:functions?|tools?|default_api)[.:/]", re.IGNORECASE)


def tidy(name: str) -> str:
    """`name` without glued markup, namespace, case and dashes: `functions.File-Read<|x|>` gives `file_read`."""
    bare = _PREFIX.sub("", name.strip())
    match = _FIRST_NAME.match(bare)
    return match[0].strip(".-").replace("-", "_").lower() if match else ""


def nearest(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Up to three of `known` that `name` probably stands for, best first."""
    known = tuple(known)
    wanted = tidy(name)
    found: list[str] = []
    alias = ALIASES.get(wanted)
    if alias in known:
        found.append(alias)
    parts = set(wanted.split("_"))
    close = get_close_matches(wanted, known, n=3, cutoff=0.5)
    related = sorted(
        (n for n in known if parts & set(n.split("_"))), key=lambda n: (-len(parts & set(n.split("_"))), n)
    )
    for candidate in (*close, *related):
        if candidate not in found:
            found.append(candidate)
    return tuple(found[:3])
