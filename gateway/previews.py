"""Joining in the middle of a message: the text so far, and then only what goes beyond it."""

from pydantic_core import from_json, to_json

from gateway.frames import Frame, preview


def without_known(queue: list[Frame], texts: list[Frame]) -> list[Frame]:
    """`queue` without the previews that `texts` (the text so far, from offset 0) contain already.

    A preview that reaches beyond is cut to what is new, so that a client may simply append.
    """
    known = {}
    for text in texts:
        delta = from_json(text.data)
        known[delta["item"], delta["kind"]] = len(delta["text"])
    kept = []
    for frame in queue:
        if not frame.is_preview:
            kept.append(frame)
            continue
        delta = from_json(frame.data)
        new_from = known.get((delta["item"], delta["kind"]), 0) - delta["offset"]
        if new_from <= 0:
            kept.append(frame)
        elif new_from < len(delta["text"]):
            cut = delta | {"offset": delta["offset"] + new_from, "text": delta["text"][new_from:]}
            kept.append(preview(to_json(cut)))
    return kept
