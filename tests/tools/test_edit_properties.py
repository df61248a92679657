"""Promises of the edit tools that hold for any file: what is outside the span stays, edits can be taken back."""

from collections.abc import Callable

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.tools.harness import Bench
from workflow.core.errors import ToolError
from workflow.sandboxes.memory import MemorySandbox
from workflow.tools.diffs import unified
from workflow.tools.encoding import decode
from workflow.tools.lines import View, to_lf
from workflow.tools.matching import Edit, apply_all, apply_edit

FEW = settings(max_examples=60, deadline=None)
PIECE = st.text(alphabet="ab {}$\\\t'\"“’–é\u0301\u00a0€😀ﬁ\u2028\x0c", max_size=6)
END = st.sampled_from(["\n", "\r\n"])
FILE = st.lists(st.tuples(PIECE, END), max_size=8).flatmap(
    lambda lines: PIECE.map(lambda last: "".join(line + end for line, end in lines) + last)
)
UNIFORM = st.tuples(st.lists(PIECE, max_size=8), END).map(lambda made: made[1].join(made[0]))
NEW = st.lists(PIECE, max_size=4).map("\n".join)


@st.composite
def edits(draw: st.DrawFn, files: st.SearchStrategy[str] = FILE) -> tuple[str, int, int, str]:
    """A file, a span of its text that occurs once, and a new text for it."""
    raw = draw(files)
    text = View(raw).text
    assume(text)
    start = draw(st.integers(0, len(text) - 1))
    end = draw(st.integers(start + 1, len(text)))
    old, new = text[start:end], draw(NEW)
    assume(text.find(old) == start and text.find(old, start + 1) < 0)
    assume(new != old)
    return raw, start, end, new


@FEW
@given(edits())
def test_bytes_outside_of_the_span_are_untouched(made: tuple[str, int, int, str]) -> None:
    raw, start, end, new = made
    view = View(raw)

    applied = apply_edit(raw, Edit(view.text[start:end], new))

    before, after = raw[: view.raw_offset(start)], raw[view.raw_offset(end) :]
    assert applied.text.startswith(before)
    assert applied.text.endswith(after)
    assert to_lf(applied.text[len(before) : len(applied.text) - len(after)]) == new
    assert applied.how == ""


@FEW
@given(edits(UNIFORM))
def test_an_edit_can_be_taken_back(made: tuple[str, int, int, str]) -> None:
    raw, start, end, new = made
    old = View(raw).text[start:end]
    changed = apply_edit(raw, Edit(old, new)).text
    text = View(changed).text
    assume(new and text.count(new) == 1 and text.find(new, text.find(new) + 1) < 0)
    # A file whose only line end was taken away has forgotten which one it was.
    assume("\n" in changed or "\n" not in raw)

    assert apply_edit(changed, Edit(new, old)).text == raw


@FEW
@given(edits())
def test_the_line_ends_of_untouched_lines_stay(made: tuple[str, int, int, str]) -> None:
    raw, start, end, new = made
    view = View(raw)

    changed = apply_edit(raw, Edit(view.text[start:end], new)).text

    lines_before = view.text[:start].count("\n")
    assert changed.split("\n")[:lines_before] == raw.split("\n")[:lines_before]


@FEW
@given(st.lists(PIECE, min_size=1, max_size=8), st.data())
def test_a_loose_match_changes_whole_lines_only_and_one_place_only(lines: list[str], data: st.DataObject) -> None:
    raw = "\n".join(lines) + "\n"
    first = data.draw(st.integers(0, len(lines) - 1))
    count = data.draw(st.integers(1, len(lines) - first))
    bent = [_bent(line, data) for line in lines[first : first + count]]
    old = "\n".join(bent) + "\n"
    assume(old not in raw and old.strip())

    try:
        applied = apply_edit(raw, Edit(old, "NEW\n"))
    except ToolError as error:
        assume(error.kind in ("not_found", "ambiguous"))
        return
    after = applied.text.split("\n")
    assert after.count("NEW") >= 1
    place = applied.line - 1
    assert after[:place] == lines[:place]
    assert after[place].lstrip(" \t") == "NEW"
    assert after[place + 1 : -1] == lines[place + count :]
    assert applied.how


def _bent(line: str, data: st.DataObject) -> str:
    """`line` as a model might remember it."""
    way = data.draw(st.sampled_from(["same", "end", "indent", "quotes", "blanks"]))
    if way == "end":
        return line + "  "
    if way == "indent":
        return "    " + line
    if way == "quotes":
        return line.replace("“", '"').replace("’", "'").replace("–", "-")
    return line.replace("\u00a0", " ") if way == "blanks" else line


@FEW
@given(st.binary(max_size=60) | FILE.map(str.encode) | FILE.map(lambda text: text.encode("utf-16")))
def test_any_file_that_is_read_as_text_can_be_written_back_as_it_was(raw: bytes) -> None:
    decoded = decode(raw)

    assume(decoded is not None)
    assert decoded is not None
    assert decoded.bom + decoded.encode(decoded.text) == raw


@FEW
@given(FILE, st.lists(st.tuples(PIECE, NEW, st.booleans()), min_size=1, max_size=4))
def test_many_edits_are_the_same_as_one_after_the_other(raw: str, asked: list[tuple[str, str, bool]]) -> None:
    wanted = [Edit(old, new, every) for old, new, every in asked]

    assert outcome_of(lambda: apply_all(raw, wanted)[-1].text) == outcome_of(lambda: one_by_one(raw, wanted))


def one_by_one(text: str, wanted: list[Edit]) -> str:
    for edit in wanted:
        text = apply_edit(text, edit).text
    return text


def outcome_of(work: Callable[[], str]) -> tuple[str, str]:
    """The text or the kind of error."""
    try:
        return "text", work()
    except ToolError as error:
        return "error", error.kind


@FEW
@given(FILE, st.lists(st.tuples(PIECE, NEW, st.booleans()), min_size=1, max_size=4))
async def test_multi_edit_writes_all_or_nothing(raw: str, asked: list[tuple[str, str, bool]]) -> None:
    sandbox = MemorySandbox({"f": raw})
    bench = Bench(sandbox)
    await bench("file_read", path="f")
    list_of_edits = [{"old": old, "new": new, "replace_all": every} for old, new, every in asked]

    outcome = await bench.attempt("multi_edit", path="f", edits=list_of_edits)

    after = (await sandbox.read("f")).decode()
    if isinstance(outcome, ToolError):
        assert after == raw
    else:
        assert after == apply_all(raw, [Edit(old, new, every) for old, new, every in asked])[-1].text


@FEW
@given(FILE, FILE)
def test_a_diff_gives_the_new_lines(before: str, after: str) -> None:
    diff = unified(before, after, "f")

    old, new = View(before).text, View(after).text
    added = {line[1:] for line in diff.split("\n")[2:] if line.startswith("+")}
    assert (diff == "") is (old == new)
    assert set(new.removesuffix("\n").split("\n")) - set(old.split("\n")) - {""} <= added


@FEW
@given(FILE)
def test_places_in_the_text_lead_to_the_same_characters_in_the_file(raw: str) -> None:
    view = View(raw)

    for position, char in enumerate(view.text):
        found = raw[view.raw_offset(position)]
        assert found == char or (char == "\n" and found == "\r")
    assert view.raw_offset(len(view.text)) == len(raw)
