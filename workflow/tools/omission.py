"""Recognises a line that stands for code left out, which would delete that code if it were written."""

import re

_COMMENT = re.compile(r"^(?:#+|//+|/\*+|<!--|--|;+|%+|\*+|\{/\*|\"\"\"|''')\s*|\s*(?:\*/\}?|-->|\*+|\"\"\"|''')$")
_MAX_CHARS = 300
_DOTS = re.compile(r"\.{3,}|…")
_WHAT = (
    r"(?:code|methods?|functions?|class(?:es)?|implementations?|imports?|files?|contents?|logic|lines?|tests?|body"
    r"|fields|properties|statements|definitions|cases|rules|config(?:uration)?)"
)
# The whole line must say it: a comment that merely mentions remaining lines is a comment.
_STANDS_FOR = re.compile(
    rf"(?:(?:keep|leave|insert|include|your|the|all) )*"
    rf"(?:(?:rest of|remaining|existing|unchanged|same|previous|original|other)(?: \w+)*? {_WHAT}"
    rf"|{_WHAT} (?:unchanged|as before|stays? the same|remains?(?: the same| unchanged)?|goes here|omitted)"
    r"|(?:the )?rest(?: (?:is|stays|remains))? (?:unchanged|the same|as before)"
    r"|unchanged|omitted for brevity|same as before|as before)"
    r"(?: (?:here|unchanged|as before|goes here|stays? the same|remains?(?: the same| unchanged)?|above|below))*",
    re.IGNORECASE,
)


def placeholder_in(new: str, old: str = "") -> str:
    """The first line of `new` that stands for omitted code and is not in `old`; empty if there is none."""
    known = {line.strip() for line in old.split("\n")}
    for line in new.split("\n"):
        text = line.strip()
        if text and len(text) <= _MAX_CHARS and text not in known and _is_placeholder(text):
            return text[:120]
    return ""


def _is_placeholder(text: str) -> bool:
    inner = _COMMENT.sub("", _COMMENT.sub("", text)).strip()
    bracketed = re.fullmatch(r"[(\[{<](.*)[)\]}>]", inner)
    if bracketed:
        inner = bracketed[1].strip()
    commented = inner != text
    if not commented and not re.match(r"\.{3}|…", inner):
        return False
    words = re.sub(r"[^\w ]+", " ", _DOTS.sub(" ", inner)).split()
    return bool(_DOTS.search(inner)) and len(words) <= 12 and bool(_STANDS_FOR.fullmatch(" ".join(words)))
