"""Reading: pages that say how to go on, nothing that hangs, nothing that floods."""

import hashlib
import json
import struct

import pytest

from tests.tools.harness import Bench
from workflow.sandboxes.memory import MemorySandbox

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 10, 20) + b"\x08\x02\0\0\0" + b"\0" * 20


async def test_lines_are_numbered_and_the_content_is_remembered(bench: Bench) -> None:
    await bench.sandbox.write("a.py", b"one\n\ttwo\n")

    result = await bench("file_read", path="a.py")

    assert result.text == "1\tone\n2\t\ttwo"
    assert result.facts == {"a.py": hashlib.sha256(b"one\n\ttwo\n").hexdigest()}
    assert bench.state.facts == result.facts


async def test_pages_join_without_gap_or_repeat(bench: Bench) -> None:
    lines = [f"line {n}" for n in range(1, 5001)]
    await bench.sandbox.write("a", "\n".join(lines).encode())

    seen: list[str] = []
    offset = 1
    while True:
        result = await bench("file_read", path="a", offset=offset)
        seen += [line.partition("\t")[2] for line in result.text.partition("\n\n[")[0].split("\n")]
        if f"offset={result.data['last'] + 1}" not in result.text:
            break
        offset = result.data["last"] + 1

    assert seen == lines
    assert "the end of the file" in result.text


async def test_a_negative_offset_counts_from_the_end(bench: Bench) -> None:
    await bench.sandbox.write("a", b"1\n2\n3\n4\n")

    assert (await bench("file_read", path="a", offset=-2)).text.startswith("3\t3\n4\t4\n")
    assert (await bench("file_read", path="a", offset=-99, limit=1)).text.startswith("1\t1\n")


async def test_past_the_end_names_the_number_of_lines(bench: Bench) -> None:
    await bench.sandbox.write("a", b"1\n2\n")

    error = await bench.fails("file_read", path="a", offset=3)

    assert error.kind == "past_end"
    assert "has 2 lines" in error.message


async def test_an_empty_file_says_so(bench: Bench) -> None:
    await bench.sandbox.write("a", b"")

    assert (await bench("file_read", path="a")).text == "a is an empty file."


async def test_long_lines_are_cut_and_say_how_to_see_more(bench: Bench) -> None:
    await bench.sandbox.write("a", b"x" * 100_000 + b"\nshort\n")

    result = await bench("file_read", path="a")

    assert len(result.text) < 3000
    assert "line cut: 100,000 characters" in result.text
    assert "sed -n" in result.text
    assert "2\tshort" in result.text


async def test_a_page_holds_at_most_fifty_thousand_characters(bench: Bench) -> None:
    await bench.sandbox.write("a", b"".join(b"%d " % n + b"y" * 1000 + b"\n" for n in range(200)))

    result = await bench("file_read", path="a")

    assert 40_000 < len(result.text) < 51_000
    assert f"offset={result.data['last'] + 1}" in result.text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\xef\xbb\xbfa\r\nb\r\n", "1\ta\n2\tb\n\n[encoding utf-8 with BOM]"),
        ("\ufeffä€\n".encode("utf-16-le"), "1\tä€\n\n[encoding utf-16-le with BOM]"),
        (b"a\rb\rc", "1\ta\n2\tb\n3\tc"),
        (b"caf\xe9\n", "1\tcafé\n\n[encoding cp1252]"),
        ("ü€😀\n".encode(), "1\tü€😀"),
        ("üüü".encode() + b"\xff\n", "1\tüüü�\n\n[encoding utf-8 with invalid bytes]"),
        (b"a\x0cb\n", "1\ta\x0cb"),
    ],
    ids=["BOM and CRLF", "UTF-16", "CR", "Latin", "UTF-8", "damaged", "form feed"],
)
async def test_encodings_are_recognised(raw: bytes, shown: str) -> None:
    bench = Bench(MemorySandbox({"a": raw}))

    assert (await bench("file_read", path="a")).text == shown


@pytest.mark.parametrize(
    ("raw", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 30, "image/jpeg"),
        (b"GIF89a" + b"\x01\0\x01\0" + b"\0" * 10, "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 10, "image/webp"),
    ],
)
async def test_pictures_are_known_by_their_bytes(raw: bytes, media_type: str) -> None:
    bench = Bench(MemorySandbox({"a.txt": raw}))

    result = await bench("file_read", path="a.txt")

    assert [(image.media_type, image.content) for image in result.images] == [(media_type, raw)]


async def test_a_page_called_png_is_text() -> None:
    bench = Bench(MemorySandbox({"a.png": "<html>\n"}))

    result = await bench("file_read", path="a.png")

    assert result.images == ()
    assert result.text == "1\t<html>"


async def test_a_picture_too_large_for_any_model_is_refused_with_a_way_out() -> None:
    wide = PNG[:16] + struct.pack(">II", 9000, 10) + PNG[24:]
    bench = Bench(MemorySandbox({"wide.png": wide, "heavy.png": PNG + b"\0" * 5_000_000}))

    for path in ("wide.png", "heavy.png"):
        error = await bench.fails("file_read", path=path)
        assert error.kind == "too_large"
        assert "resize" in error.message


@pytest.mark.parametrize("raw", [b"\0\1\2\3", b"%PDF-1.7\n\0\0", b"\x7fELF\2\1\1\0", b"\x1f\x8b\x08\0\0\0"])
async def test_other_binaries_are_refused_with_a_hint(raw: bytes) -> None:
    bench = Bench(MemorySandbox({"a": raw}))

    error = await bench.fails("file_read", path="a")

    assert error.kind == "binary"
    assert ("pdftotext" in error.message) is raw.startswith(b"%PDF")


@pytest.mark.parametrize(
    "source",
    ['{"cells": [{"outputs": 5}]}', '{"cells": [null]}', "[" * 50_000, '{"cells": ' + "[" * 50_000],
    ids=["odd outputs", "no cell", "deep", "deep cells"],
)
async def test_a_notebook_that_is_none_is_shown_as_text(source: str) -> None:
    bench = Bench(MemorySandbox({"a.ipynb": source}))

    assert (await bench("file_read", path="a.ipynb")).text.startswith(f"1\t{source[:20]}")


async def test_a_notebook_with_gaps_is_shown() -> None:
    source = '{"cells": [{"cell_type": "code", "source": null, "outputs": null}, {"source": ["x"]}]}'
    bench = Bench(MemorySandbox({"a.ipynb": source}))

    assert "=== cell 1 (code)" in (await bench("file_read", path="a.ipynb")).text


async def test_a_notebook_is_shown_as_cells() -> None:
    notebook = {
        "cells": [
            {"cell_type": "markdown", "source": "# Title"},
            {
                "cell_type": "code",
                "source": ["x = 1\n", "x"],
                "outputs": [
                    {"output_type": "stream", "text": ["hello\n"]},
                    {"output_type": "execute_result", "data": {"text/plain": "1", "image/png": "aGk="}},
                    {"output_type": "error", "ename": "ValueError", "evalue": "no"},
                ],
            },
        ]
    }
    bench = Bench(MemorySandbox({"a.ipynb": json.dumps(notebook), "b.ipynb": "[1, 2]"}))

    shown = (await bench("file_read", path="a.ipynb")).text

    for part in ("=== cell 1 (markdown)", "# Title", "x = 1", "hello", "(image/png)", "ValueError: no"):
        assert part in shown
    assert "aGk=" not in shown
    assert (await bench("file_read", path="b.ipynb")).text == "1\t[1, 2]"


async def test_a_folder_points_to_ls(bench: Bench) -> None:
    await bench.sandbox.make_dir("src")

    error = await bench.fails("file_read", path="src")

    assert error.kind == "is_directory"
    assert "ls" in error.message


async def test_a_pipe_is_refused_at_once(shell: Bench) -> None:
    await shell("bash", command="mkfifo pipe")

    assert (await shell.fails("file_read", path="pipe")).kind == "not_regular"


async def test_a_missing_file_names_near_ones(bench: Bench) -> None:
    await bench.sandbox.write("src/main.py", b"a\n")

    error = await bench.fails("file_read", path="src/Main.py")

    assert error.kind == "file_missing"
    assert "src/main.py" in error.message


@pytest.mark.parametrize("path", ["", " ", "a\0b", "../../etc/passwd", "/etc/passwd", "a/../../b", "//etc/passwd"])
async def test_paths_that_lead_elsewhere_are_refused(bench: Bench, path: str) -> None:
    assert (await bench.fails("file_read", path=path)).kind in ("outside_workspace", "bad_path")


async def test_a_huge_file_is_read_in_parts_only(bench: Bench) -> None:
    await bench.sandbox.write("big", b"".join(b"line %07d\n" % n for n in range(1, 900_001)))

    whole = await bench.fails("file_read", path="big")
    part = await bench("file_read", path="big", offset=800_000, limit=2)
    beyond = await bench.fails("file_read", path="big", offset=900_001, limit=5)

    last = await bench("file_read", path="big", offset=899_999, limit=2)
    assert "line 0900000\n\n[Lines 899999–900000" in last.text
    assert "offset=" not in last.text
    assert "Go on with offset=900000." in (await bench("file_read", path="big", offset=899_999, limit=1)).text
    assert whole.kind == "too_large"
    assert part.text.startswith("800000\tline 0800000\n800001\tline 0800001\n\n[Lines 800000–800001")
    assert beyond.kind == "past_end"
