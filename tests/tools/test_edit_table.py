"""What one edit makes of a file, byte for byte: 120 small files, each with its one right answer."""

import time
from typing import Any, NamedTuple

import pytest

from tests.tools.harness import Bench
from workflow.core.errors import ToolError
from workflow.sandboxes.memory import MemorySandbox
from workflow.tools.base import ToolOutput
from workflow.tools.matching import Edit, apply_edit


class Case(NamedTuple):
    """A file, an edit, and the file after it, or the kind of error (the file is then as before)."""

    before: bytes
    old: str
    new: str
    after: bytes | str
    replace_all: bool = False
    loose: bool = False
    """True where the match is not exact, which the answer has to say."""


BOM = b"\xef\xbb\xbf"
PY = b"def f():\n    a = 1\n    return a\n"

EXACT: dict[str, Case] = {
    "word": Case(b"one two\n", "two", "2", b"one 2\n"),
    "line": Case(PY, "    a = 1\n", "    a = 2\n", b"def f():\n    a = 2\n    return a\n"),
    "line without its end": Case(PY, "    a = 1", "    a = 2", b"def f():\n    a = 2\n    return a\n"),
    "several lines": Case(PY, "    a = 1\n    return a", "    return 1", b"def f():\n    return 1\n"),
    "first line": Case(b"a\nb\n", "a\n", "x\n", b"x\nb\n"),
    "last line without end": Case(b"a\nb", "b", "x", b"a\nx"),
    "whole file": Case(b"a\nb\n", "a\nb\n", "c\n", b"c\n"),
    "delete a line": Case(b"a\nb\nc\n", "b\n", "", b"a\nc\n"),
    "delete a word": Case(b"a b c\n", " b", "", b"a c\n"),
    "delete everything": Case(b"a\n", "a\n", "", b""),
    "insert before": Case(b"b\n", "b\n", "a\nb\n", b"a\nb\n"),
    "insert after": Case(b"a\n", "a\n", "a\nb\n", b"a\nb\n"),
    "join lines": Case(b"a\nb\n", "a\nb", "a b", b"a b\n"),
    "split a line": Case(b"a b\n", "a b", "a\nb", b"a\nb\n"),
    "only a line end": Case(b"a\nb", "\n", " ", b"a b"),
    "blank lines": Case(b"a\n\n\nb\n", "\n\n\n", "\n", b"a\nb\n"),
    "blanks at the end are kept": Case(b"a  \nb\n", "b", "c", b"a  \nc\n"),
    "tabs are kept": Case(b"\ta\n\tb\n", "a", "c", b"\tc\n\tb\n"),
    "no final line end stays away": Case(b"a\nb", "a", "x", b"x\nb"),
    "final line end stays": Case(b"a\nb\n", "b", "x", b"a\nx\n"),
    "final line end may be added": Case(b"a", "a", "a\n", b"a\n"),
    "old is part of new": Case(b"a b\n", "a", "a a", b"a a b\n"),
    "exact hit beside a loose one": Case(b"  x = 1\ny\n\tx = 1\n", "\tx = 1", "\tx = 2", b"  x = 1\ny\n\tx = 2\n"),
    "long line": Case(b"a" * 100_000 + b"b\n", "ab", "ac", b"a" * 100_000 + b"c\n"),
    "empty file": Case(b"", "", "a\n", b"a\n"),
    "ellipsis in Python": Case(b"def f(): pass\n", "pass", "...", b"def f(): ...\n"),
    "comment with dots": Case(b"a\n", "a", "# wait for the other threads ...", b"# wait for the other threads ...\n"),
    "a placeholder that was there": Case(b"# ... rest of code ...\na\n", "# ... rest of code ...\na",
                                         "# ... rest of code ...\nb", b"# ... rest of code ...\nb\n"),
}  # fmt: skip

LITERAL: dict[str, Case] = {
    "dollar ampersand": Case(b"x\n", "x", "$&$1$$", b"$&$1$$\n"),
    "backslash one": Case(b"x\n", "x", r"\1\g<0>\n", b"\\1\\g<0>\\n\n"),
    "pattern signs in old": Case(b"a.*(b)[c]\n", ".*(b)[c]", "-", b"a-\n"),
    "a dot is a dot": Case(b"axb\n", "a.b", "x", "not_found"),
    "case counts": Case(b"Foo\n", "foo", "x", "not_found"),
    "percent and braces": Case(b"{x} %s\n", "{x} %s", "{y} %d", b"{y} %d\n"),
    "HTML entities": Case(b"&lt;a&gt;\n", "&lt;", "<", b"<a&gt;\n"),
    "written backslash n": Case(b"print('a\\n')\n", "'a\\n'", "'b\\n'", b"print('b\\n')\n"),
    "a NUL in the new text": Case(b"a\n", "a", "b\0c", b"b\0c\n"),
}

LINE_ENDS: dict[str, Case] = {
    "CRLF word": Case(b"a\r\nb\r\n", "a", "x", b"x\r\nb\r\n"),
    "CRLF lines given as LF": Case(b"a\r\nb\r\nc\r\n", "a\nb\n", "x\ny\nz\n", b"x\r\ny\r\nz\r\nc\r\n"),
    "CRLF lines given as CRLF": Case(b"a\r\nb\r\nc\r\n", "a\r\nb", "x\r\ny", b"x\r\ny\r\nc\r\n"),
    "CRLF, only new has CR": Case(b"a\r\nb\r\n", "a", "x\r\ny", b"x\r\ny\r\nb\r\n"),
    "CRLF, only old has CR": Case(b"a\r\nb\r\nc\r\n", "a\r\nb", "x\ny", b"x\r\ny\r\nc\r\n"),
    "LF file, CRLF given": Case(b"a\nb\nc\n", "a\r\nb\r\n", "x\r\ny\r\n", b"x\ny\nc\n"),
    "CRLF insert in one line": Case(b"a\r\nb\r\n", "a", "a\na2", b"a\r\na2\r\nb\r\n"),
    "CRLF delete a line": Case(b"a\r\nb\r\nc\r\n", "b\n", "", b"a\r\nc\r\n"),
    "CRLF join": Case(b"a\r\nb\r\n", "a\nb", "ab", b"ab\r\n"),
    "CRLF without final end": Case(b"a\r\nb", "b", "x\ny", b"a\r\nx\r\ny"),
    "CRLF span ends at the line end": Case(b"a\r\nb\r\n", "a\n", "x\n", b"x\r\nb\r\n"),
    "CRLF span starts at the line end": Case(b"a\r\nb\r\n", "\nb", "\nx", b"a\r\nx\r\n"),
    "mixed: LF line": Case(b"a\r\nb\nc\r\n", "b", "x", b"a\r\nx\nc\r\n"),
    "mixed: CRLF line": Case(b"a\r\nb\nc\r\n", "a", "x", b"x\r\nb\nc\r\n"),
    "mixed: across both": Case(b"a\r\nb\nc\r\n", "a\nb\nc", "a\nB\nc", b"a\r\nB\nc\r\n"),
    "mixed: all lines new": Case(b"a\r\nb\nc\r\n", "a\nb\n", "x\ny\n", b"x\r\ny\nc\r\n"),
    "mixed: a line more": Case(b"a\r\nb\nc\r\nd\n", "a\nb\nc\n", "a\nb\nnew\nc\n", b"a\r\nb\nnew\r\nc\r\nd\n"),
    "mixed: a line less": Case(b"a\r\nb\nc\r\nd\n", "a\nb\nc\n", "a\nc\n", b"a\r\nc\r\nd\n"),
    "mixed: insert after an LF line": Case(b"a\r\nb\nc\r\n", "b", "b\nb2", b"a\r\nb\nb2\nc\r\n"),
    "mixed: insert after a CRLF line": Case(b"a\r\nb\nc\r\n", "a", "a\na2", b"a\r\na2\r\nb\nc\r\n"),
    "mixed: same text twice": Case(b"a\r\nb\na\nb\r\n", "a\nb", "x", "ambiguous"),
    "CR alone as line ends": Case(b"a\rb\rc\r", "b", "x\ny", b"a\rx\ry\rc\r"),
    "CR alone, lines given as LF": Case(b"a\rb\rc\r", "a\nb\n", "x\n", b"x\rc\r"),
    "CR as data": Case(b"a\rb\nc\n", "c", "x", b"a\rb\nx\n"),
    "CR as data, matched": Case(b"a\rb\nc\n", "a\rb", "a\rx", b"a\rx\nc\n"),
    "CR as data, taken away": Case(b"a\rb\nc\n", "a\rb", "ab", b"ab\nc\n"),
    "CR CR LF": Case(b"a\r\r\nb\r\n", "b", "x", b"a\r\r\nx\r\n"),
    "LF to CRLF is no change": Case(b"a\n", "a\n", "a\r\n", "no_change"),
    "CRLF to LF when spelt out": Case(b"a\r\nb\r\n", "a\r\n", "a\n", b"a\nb\r\n"),
    "form feed and others are not line ends": Case(b"a\x0cb\x85\n".replace(b"\x85", "\x85".encode()), "a\x0cb", "x",
                                                   "x\x85\n".encode()),
    "U+2028 is not a line end": Case("a\u2028b\n".encode(), "a\u2028b", "x", b"x\n"),
}  # fmt: skip

ENCODINGS: dict[str, Case] = {
    "BOM stays": Case(BOM + b"a\nb\n", "b", "x", BOM + b"a\nx\n"),
    "BOM stays before the first line": Case(BOM + b"a\n", "a", "x", BOM + b"x\n"),
    "BOM and CRLF": Case(BOM + b"a\r\nb\r\n", "a\nb", "x\ny", BOM + b"x\r\ny\r\n"),
    "UTF-16 LE": Case("\ufeffa€\nb\n".encode("utf-16-le"), "a€", "ü", "\ufeffü\nb\n".encode("utf-16-le")),
    "UTF-16 BE": Case("\ufeffa\r\nb".encode("utf-16-be"), "b", "😀", "\ufeffa\r\n😀".encode("utf-16-be")),
    "UTF-8 of all lengths": Case("aü€😀\n".encode(), "ü€😀", "x", b"ax\n"),
    "emoji with joiner": Case("👩‍💻 a\n".encode(), "a", "b", "👩‍💻 b\n".encode()),
    "Latin-1": Case("Grüße aus Köln, schöne Straße für alle Bürger\nb\n".encode("latin-1"), "b", "ü",
                    "Grüße aus Köln, schöne Straße für alle Bürger\nü\n".encode("latin-1")),
    "Latin-1 cannot hold it": Case("Grüße aus Köln, schöne Straße für alle Bürger\nb\n".encode("latin-1"), "b", "→",
                                   "encoding"),
    "a single odd byte": Case(b"caf\xe9\nb\n", "b", "x", b"caf\xe9\nx\n"),
    "damaged UTF-8": Case("üüüüü".encode() + b"\xff\nb\n", "b", "x", "üüüüü".encode() + b"\xff\nx\n"),
    "Shift JIS": Case("日本語のテキストです。これはテストです。\nb\n".encode("shift_jis"), "b", "語",
                      "日本語のテキストです。これはテストです。\n語\n".encode("shift_jis")),
    "binary": Case(b"\x00\x01\x02abc", "abc", "x", "binary"),
    "picture": Case(b"\x89PNG\r\n\x1a\n\x00abc", "abc", "x", "binary"),
    "decomposed stays decomposed": Case("e\u0301 a\n".encode(), "a", "b", "e\u0301 b\n".encode()),
    "composed stays composed": Case("é a\n".encode(), "a", "b", "é b\n".encode()),
    "no-break space stays": Case("a\u00a0b c\n".encode(), "c", "d", "a\u00a0b d\n".encode()),
}  # fmt: skip

LOOSE: dict[str, Case] = {
    "blanks at the end": Case(b"a = 1  \nb\n", "a = 1\nb\n", "a = 2\nb\n", b"a = 2\nb\n", loose=True),
    "blanks at the end of an untouched line stay": Case(b"a  \nb\n", "a\nb\n", "a\nc\n", b"a  \nc\n", loose=True),
    "blanks at the end of old": Case(b"a\nb\n", "a  \nb\n", "c\nb\n", b"c\nb\n", loose=True),
    "deeper in the file": Case(b"    if x:\n        y()\n", "if x:\n    y()\n", "if x:\n    z()\n",
                               b"    if x:\n        z()\n", loose=True),
    "deeper in old": Case(b"if x:\n    y()\n", "    if x:\n        y()\n", "    if x:\n        z()\n        w()\n",
                          b"if x:\n    z()\n    w()\n", loose=True),
    "tabs in the file": Case(b"if x:\n\ty()\n\tz()\n", "if x:\n    y()\n    z()\n",
                           "if x:\n    y()\n    if z:\n        w()\n",
                             b"if x:\n\ty()\n\tif z:\n\t\tw()\n", loose=True),
    "spaces in the file": Case(b"if x:\n  y()\n", "if x:\n\ty()\n", "if x:\n\tz()\n", b"if x:\n  z()\n", loose=True),
    "two for four": Case(b"if x:\n    y()\n        z\n", "if x:\n  y()\n    z\n", "if x:\n  w()\n",
                         b"if x:\n    w()\n", loose=True),
    "uneven indentation is no match": Case(b"  a\n    b\n", "a\n b\n", "x\n", "not_found"),
    "new text cannot be moved left": Case(b"a\n", "  a\n", "b\n", "not_found"),
    "curly quotes": Case("s = “a”\n".encode(), 's = "a"\n', 's = "b"\n', "s = “b”\n".encode(), loose=True),
    "curly apostrophe stays elsewhere": Case("it’s a\nit’s b\n".encode(), "it's a\n", "it's c\n",
                                             "it’s c\nit’s b\n".encode(),
                                             loose=True),
    "dashes": Case("a – b\n".encode(), "a - b\n", "a - c\n", "a – c\n".encode(), loose=True),
    "no-break space in the file": Case("a\u00a0b c\n".encode(), "a b c\n", "a b d\n",
                                       "a\u00a0b d\n".encode(), loose=True),
    "composed for decomposed": Case("e\u0301t a\n".encode(), "ét a\n", "ét b\n", "e\u0301t b\n".encode(), loose=True),
    "full-width": Case("ＡＢ c\n".encode(), "AB c\n", "AB d\n", "ＡＢ d\n".encode(), loose=True),
    "ligature": Case("ﬁn a\n".encode(), "fin a\n", "fin b\n", "ﬁn b\n".encode(), loose=True),
    "untouched line keeps its quotes": Case("“a”\nb\n".encode(), '"a"\nb\n', '"a"\nc\n',
                                            "“a”\nc\n".encode(), loose=True),
    "final line end missing": Case(b"a\nb", "b\n", "c\n", b"a\nc", loose=True),
    "loose in CRLF": Case(b"a  \r\nb\r\n", "a\nb\n", "x\ny\n", b"x\r\ny\r\n", loose=True),
    "loose delete": Case(b"a  \nb\n", "a\n", "", b"b\n", loose=True),
    "two loose hits": Case(b"a  \nx\na \n", "a\nx", "y", b"y\na \n", loose=True),
    "loose and twice": Case(b"  a = 1\n  b\n    a = 1\n    b\n", "a = 1\nb\n", "c\nd\n", "ambiguous"),
    "twice in quotes": Case("“a”\n”a”\n".encode(), '"a"\n', '"b"\n', "ambiguous"),
}  # fmt: skip

REFUSED: dict[str, Case] = {
    "nothing alike": Case(PY, "class Nothing:", "x", "not_found"),
    "part of a word by stripping": Case(b"return foodtruck\n", " foo ", " bar ", "not_found"),
    "blank old around a word": Case(b"return foodtruck\n", "\nfoo\n", "\nbar\n", "not_found"),
    "one line drifted": Case(b"a = 1\nb = 2\nc = 3\n", "a = 1\nb = 22\nc = 3\n", "x\n", "not_found"),
    "stale anchor lines": Case(b"def f():\n    x()\n    y()\n    return 1\n",
                               "def f():\n    z()\n    return 1\n", "p\n",
                               "not_found"),
    "one character off": Case(b"return value\n", "return valve\n", "return 1\n", "not_found"),
    "inner blanks differ": Case(b"a = 1\n", "a  =  1\n", "a = 2\n", "not_found"),
    "blank line missing": Case(b"a\n\nb\n", "a\nb\n", "x\n", "not_found"),
    "longer than the file": Case(b"a\n", "a\nb\nc\n", "x\n", "not_found"),
    "line numbers copied": Case(b"a = 1\n", "1\ta = 1\n", "1\ta = 2\n", "not_found"),
    "twice": Case(b"a\na\n", "a", "b", "ambiguous"),
    "twice in a line": Case(b"a a\n", "a", "b", "ambiguous"),
    "overlapping": Case(b"aaa\n", "aa", "b", "ambiguous"),
    "same": Case(b"a\n", "a", "a", "no_change"),
    "same but not there": Case(b"a\n", "b", "b", "no_change"),
    "empty old": Case(b"a\n", "", "b", "empty_old"),
    "rest of code": Case(PY, "    a = 1\n", "    # ... rest of code ...\n", "omission_placeholder"),
    "existing code": Case(PY, "    a = 1\n", "    // ... existing code ...\n", "omission_placeholder"),
    "methods in a block comment": Case(PY, "    a = 1\n", "/* rest of methods ... */\n", "omission_placeholder"),
    "unchanged": Case(PY, "    a = 1\n", "... (unchanged) ...\n", "omission_placeholder"),
    "HTML comment": Case(b"<p>\n", "<p>", "<!-- ... existing content ... -->", "omission_placeholder"),
    "blank old that is there once": Case(b"a b\n", " ", "_", b"a_b\n"),
    "only blanks, not there": Case(b"ab\n", "   ", "_", "not_found"),
}  # fmt: skip

ALL_PLACES: dict[str, Case] = {
    "every one": Case(b"a b a\na\n", "a", "x", b"x b x\nx\n", replace_all=True),
    "just one": Case(b"a b\n", "a", "x", b"x b\n", replace_all=True),
    "new holds old": Case(b"a a\n", "a", "aa", b"aa aa\n", replace_all=True),
    "no overlap": Case(b"aaaa\n", "aa", "b", b"bb\n", replace_all=True),
    "none": Case(b"a\n", "x", "y", "not_found", replace_all=True),
    "never loose": Case(b"a  \n", "a\n", "b\n", "not_found", replace_all=True),
    "over mixed ends": Case(b"a\r\nb\na\nb\r\n", "a\nb", "x\ny", b"x\r\ny\nx\ny\r\n", replace_all=True),
    "delete all": Case(b"a,b,c\n", ",", "", b"abc\n", replace_all=True),
    "dollar signs": Case(b"$a $a\n", "$a", "$&", b"$& $&\n", replace_all=True),
}

TABLE = {
    f"{family}: {name}": case
    for family, cases in {
        "exact": EXACT,
        "literal": LITERAL,
        "line ends": LINE_ENDS,
        "encoding": ENCODINGS,
        "loose": LOOSE,
        "refused": REFUSED,
        "all": ALL_PLACES,
    }.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", TABLE)
async def test_an_edit_changes_what_it_says_and_no_other_byte(name: str) -> None:
    case = TABLE[name]
    sandbox = MemorySandbox({"f.txt": case.before})
    bench = Bench(sandbox)
    if case.after != "binary":
        await bench("file_read", path="f.txt")

    edit: dict[str, Any] = {"path": "f.txt", "old": case.old, "new": case.new, "replace_all": case.replace_all}
    if isinstance(case.after, str):
        error = await bench.fails("file_edit", **edit)
        assert error.kind == case.after
        assert await sandbox.read("f.txt") == case.before
    else:
        result = await bench("file_edit", **edit)
        assert await sandbox.read("f.txt") == case.after
        assert ("matched ignoring" in result.text) is case.loose


@pytest.mark.parametrize("name", [name for name, case in TABLE.items() if isinstance(case.after, bytes)])
async def test_a_repeated_edit_is_recognised_and_not_made_twice(name: str) -> None:
    case = TABLE[name]
    sandbox = MemorySandbox({"f.txt": case.before})
    bench = Bench(sandbox)
    await bench("file_read", path="f.txt")
    known = dict(bench.state.facts)
    edit: dict[str, Any] = {"path": "f.txt", "old": case.old, "new": case.new, "replace_all": case.replace_all}
    first = await bench("file_edit", **edit)
    after = await sandbox.read("f.txt")
    bench.state.facts = known  # the worker died before it could say that the edit was made

    again = await bench.attempt("file_edit", **edit)

    assert await sandbox.read("f.txt") == after
    if isinstance(again, ToolOutput):
        assert again.data["repeated"]
        assert again.data["sha256"] == first.data["sha256"]
    else:
        # Nobody can tell where a deleted text was, or what a loose match or mixed line ends looked like.
        assert again.kind in ("stale", "binary")
        lost = "\r" in case.old + case.new or "\0" in case.new or name.startswith("line ends: mixed")
        assert lost or case.loose or case.replace_all or not case.new


def test_the_table_is_large_enough() -> None:
    assert len(TABLE) >= 120


ONE_LINE = "the quick brown fox jumps over the lazy dog " * 7


@pytest.mark.parametrize(
    ("text", "old", "kind"),
    [
        ("a" * 1_000_000, "a" * 100_000, "ambiguous"),
        ("\n" * 300_000, " \n" * 2_000 + "q", "not_found"),
        ("\n" * 300_000, " \n" * 2_000, "not_found"),
        ("\n".join(ONE_LINE[i % 300 :] + ONE_LINE[: i % 300] for i in range(20_000)), f"x{ONE_LINE}", "not_found"),
        ("a = 1\n", "a = 2" + " " * 500_000 + "b", "not_found"),
    ],
    ids=["periodic", "many starts", "only blanks", "many alike", "wide"],
)
def test_a_text_made_to_be_slow_is_answered_soon(text: str, old: str, kind: str) -> None:
    started = time.process_time()
    with pytest.raises(ToolError) as caught:
        apply_edit(text, Edit(old, f"{old}!"))
    assert caught.value.kind == kind
    assert time.process_time() - started < 10  # minutes, or never, for one that is searched naively
