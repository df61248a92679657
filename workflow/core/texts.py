"""Text that every log, socket and provider takes: without half of a surrogate pair, as JSON and odd bytes bring it."""

from typing import Any


def sound(text: str) -> str:
    """The text with half surrogate pairs replaced: no log, socket or provider takes them."""
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def sound_value(value: Any) -> Any:
    """A JSON value with all its texts sound."""
    if isinstance(value, dict):
        return {sound(key): sound_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [sound_value(item) for item in value]
    return sound(value) if isinstance(value, str) else value
