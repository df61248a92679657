"""A Jupyter notebook as readable text."""

import json
from typing import Any

from workflow.tools.truncate import head_and_tail

_OUTPUT_CHARS = 2000


def cells(source: str) -> str | None:
    """The cells of a notebook with their outputs, pictures only named; None if `source` is no notebook."""
    try:
        notebook = json.loads(source)
    except (ValueError, RecursionError):
        return None
    found = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(found, list) or not all(_is_cell(cell) for cell in found):
        return None
    return "\n".join(_cell(index, cell) for index, cell in enumerate(found, 1))


def _is_cell(cell: Any) -> bool:
    return isinstance(cell, dict) and isinstance(cell.get("outputs"), list | None)


def _cell(index: int, cell: dict[str, Any]) -> str:
    outputs = [_output(output) for output in cell.get("outputs") or () if isinstance(output, dict)]
    shown = "".join(f"--- output\n{text.rstrip()}\n" for text in outputs if text)
    return f"=== cell {index} ({cell.get('cell_type', 'unknown')})\n{_joined(cell.get('source')).rstrip()}\n{shown}"


def _output(output: dict[str, Any]) -> str:
    if output.get("output_type") == "error":
        return f"{output.get('ename', 'Error')}: {output.get('evalue', '')}"
    bundle = output.get("data")
    if isinstance(bundle, dict):
        pictures = [f"({kind})" for kind in bundle if kind.startswith("image/")]
        text = _joined(bundle.get("text/plain"))
        return _short("\n".join([text, *pictures]).strip())
    return _short(_joined(output.get("text")))


def _joined(text: Any) -> str:
    """Notebooks store texts as a string or as a list of lines."""
    return "".join(map(str, text)) if isinstance(text, list) else str(text or "")


def _short(text: str) -> str:
    cut = head_and_tail(text, _OUTPUT_CHARS)
    return text if cut is None else cut.text
