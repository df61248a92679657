"""Glob patterns as the tools understand them: `**`, `*`, `?`, `[...]`, `{a,b}`; without a slash at any depth."""

import re
from functools import lru_cache

_MAX_ALTERNATIVES = 200


@lru_cache(maxsize=256)
def matcher(pattern: str, *, dots: bool = False) -> re.Pattern[str]:
    """A regular expression that fully matches the paths `pattern` means, relative to where the search starts.

    dots: let wildcards match names that start with a dot, too. Raises: ValueError if there are too many braces.
    """
    if "/" not in pattern.strip("/") and not pattern.startswith("/"):
        pattern = f"**/{pattern}"
    options = [_translate(option.strip("/"), dots) for option in alternatives(pattern)]
    return re.compile("|".join(options), re.DOTALL)


def alternatives(pattern: str) -> list[str]:
    """`a.{b,c}` as `a.b` and `a.c`; a brace without a comma or an end is a plain character."""
    depth = start = 0
    parts: list[str] = []
    for index, char in enumerate(pattern):
        if char == "{":
            depth += 1
            if depth == 1:
                start, last = index, index + 1
        elif depth and char == "," and depth == 1:
            parts.append(pattern[last:index])
            last = index + 1
        elif depth and char == "}":
            depth -= 1
            if depth == 0 and parts:
                parts.append(pattern[last:index])
                found = [
                    f"{pattern[:start]}{part}{rest}" for part in parts for rest in alternatives(pattern[index + 1 :])
                ]
                expanded = [option for one in found for option in alternatives(one)]
                if len(expanded) > _MAX_ALTERNATIVES:
                    raise ValueError("too many alternatives in braces")
                return expanded
    return [pattern]


def _translate(pattern: str, dots: bool) -> str:
    visible = "" if dots else r"(?!\.)"
    segments = pattern.split("/")
    parts: list[str] = []
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == "**":
            parts.append(f"(?:{visible}[^/]+/)*" if not last else f"(?:{visible}[^/]+/)*{visible}[^/]+")
        else:
            parts.append(_segment(segment, visible) + ("" if last else "/"))
    return "".join(parts)


def _segment(segment: str, visible: str) -> str:
    result = visible if segment[:1] in ("*", "?", "[") else ""
    index = 0
    while index < len(segment):
        char = segment[index]
        index += 1
        if char == "*":
            result += "[^/]*"
        elif char == "?":
            result += "[^/]"
        elif char == "[" and "]" in segment[index + 1 :]:
            end = segment.index("]", index + 1)
            body = segment[index:end].replace("\\", "\\\\")
            result += "[^" + body[1:] + "]" if body[0] in "!^" else f"[{body}]"
            index = end + 1
        elif char == "\\" and index < len(segment):
            result += re.escape(segment[index])
            index += 1
        else:
            result += re.escape(char)
    return result
