"""Glob patterns as the tools understand them: `**`, `*`, `?`, `[...]`, `{a,b}`; without a slash at any depth."""

import re
from functools import lru_cache

_MAX_ALTERNATIVES = 200
_MAX_BRACES = 50


@lru_cache(maxsize=256)
def matcher(pattern: str, *, dots: bool = False) -> re.Pattern[str]:
    """A regular expression that fully matches the paths `pattern` means, relative to where the search starts.

    No wildcard goes back on what it took, so a hostile pattern or name costs no more than its length.
    dots: let wildcards match names that start with a dot, too. Raises: ValueError for too many braces, a bad class.
    """
    if pattern.endswith("/"):
        pattern += "**"  # a folder: what is in it
    if "/" not in pattern.strip("/") and not pattern.startswith("/"):
        pattern = f"**/{pattern}"
    return _compiled(alternatives(pattern), dots)


def plain_matcher(pattern: str) -> re.Pattern[str]:
    """The same where braces and dots are like any other character: a line of an ignore file. Raises: ValueError."""
    return _compiled([pattern if "/" in pattern else f"**/{pattern}"], dots=True)


def _compiled(options: list[str], dots: bool) -> re.Pattern[str]:
    try:
        return re.compile("|".join(_translate(option.strip("/"), dots) for option in options), re.DOTALL)
    except re.error as error:
        raise ValueError(error.msg) from error


def alternatives(pattern: str) -> list[str]:
    """`a.{b,c}` as `a.b` and `a.c`; a brace without a comma or an end is a plain character.

    Raises: ValueError if there are too many.
    """
    if pattern.count("{") > _MAX_BRACES:
        raise ValueError("too many braces")
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
    groups: list[list[str]] = [[]]
    for segment in pattern.split("/"):
        if segment != "**":
            groups[-1].append(_segment(segment, visible))
        elif groups[-1] or len(groups) == 1:
            groups.append([])
    first, *later = ["/".join(group) for group in groups]
    if not later:
        return first
    skipped = f"(?:{visible}[^/]+/)*"
    # What stands between two `**` may as well be where it comes first.
    middle = [f"(?>{skipped}?{group}/)" for group in later[:-1]]
    return "".join([f"{first}/" if first else "", *middle, skipped, later[-1] or f"{visible}[^/]+"])


def _segment(segment: str, visible: str) -> str:
    result = visible if segment[:1] in ("*", "?", "[") else ""
    # The same goes for what stands between two `*`; what follows the last one is at the end of the name.
    first, *later = _between_stars(segment)
    middle = [f"(?>[^/]*?{part})" for part in later[:-1] if part]
    return "".join([result, first, *middle, f"[^/]*{later[-1]}" if later else ""])


def _between_stars(segment: str) -> list[str]:
    """What stands before, between and after the `*` of a segment, as regular expressions of one length each."""
    parts, index = [""], 0
    while index < len(segment):
        char = segment[index]
        index += 1
        if char == "*":
            parts.append("")
        elif char == "?":
            parts[-1] += "[^/]"
        elif char == "[" and "]" in segment[index + 1 :]:
            end = segment.index("]", index + 1)
            is_negated = segment[index] in "!^"
            body = segment[index + is_negated : end]
            chars = (
                body if body.isalnum() else "".join(c if c == "-" and "--" not in body else re.escape(c) for c in body)
            )
            parts[-1] += f"(?!/)[{'^' if is_negated else ''}{chars}]"
            index = end + 1
        elif char == "\\" and index < len(segment):
            parts[-1] += re.escape(segment[index])
            index += 1
        else:
            parts[-1] += re.escape(char)
    return parts
