"""Whether an edit was made before: what a worker needs to know that takes over from one that died."""

from collections.abc import Sequence

from workflow.core.errors import ToolError
from workflow.tools.encoding import Decoded
from workflow.tools.matching import Applied, Edit, apply_all, apply_edit
from workflow.tools.paths import digest

_TRIED_PLACES = 50


def text_before(decoded: Decoded, edits: Sequence[Edit], fact: str) -> str | None:
    """The text that the log knows, if `edits` alone lead from it to this file; else None."""
    texts = [decoded.text]
    if len(edits) == 1 and edits[0].new and not edits[0].replace_all:
        texts = list(_undone(decoded.text, edits[0]))
    else:
        for edit in reversed(edits):
            try:
                undone = apply_edit(texts[0], Edit(edit.new, edit.old, edit.replace_all))
            except ToolError:
                return None
            texts = [undone.text]
    for text in texts:
        try:
            if digest(decoded.bom + decoded.encode(text)) == fact:
                return text
        except ToolError:
            continue  # `old` cannot be written in the file's encoding, so it never was in it
    return None


def _undone(text: str, edit: Edit) -> list[str]:
    """`text` with `new` turned back into `old`, once for every place where it could have come from."""
    found: list[str] = []
    for old, new in {(edit.old.replace("\n", end), edit.new.replace("\n", end)) for end in ("\n", "\r\n", "\r")}:
        position = text.find(new)
        while position >= 0 and len(found) < _TRIED_PLACES:
            found.append(text[:position] + old + text[position + len(new) :])
            position = text.find(new, position + 1)
    return found


def check_unread(applied: list[Applied], edits: Sequence[Edit], path: str) -> None:
    """An unread file may be edited where the exact text proves that it is known, and a repeat would do nothing.

    Raises: ToolError with kind `not_read`.
    """
    needed = any(step.how for step in applied)
    if not needed:
        try:
            apply_all(applied[-1].text, edits)
        except ToolError:
            return
    raise ToolError(
        f"{path} was not read in this thread, and this edit needs it (it matches only loosely, or could apply twice). "
        "Read it with file_read, then repeat the edit.",
        kind="not_read",
    )
