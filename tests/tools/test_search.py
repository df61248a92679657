"""grep, glob and ls: ripgrep's rules, everything counted, nothing flooded; with and without ripgrep."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.sandboxes.holding import report
from tests.tools.harness import Bench, memory_sandbox
from workflow.core.config import SandboxSettings
from workflow.core.ids import ThreadId
from workflow.sandboxes.base import Sandbox, TierReport
from workflow.sandboxes.local import LocalProvider

FILES: Mapping[str, str | bytes] = {
    ".git/HEAD": "ref: needle\n",
    ".github/ci.yml": "needle: 1\n",
    ".gitignore": "ignored/\n*.log\n!keep.log\n/only_root.txt\n",
    "a.log": "needle\n",
    "keep.log": "needle\n",
    "only_root.txt": "needle\n",
    "app/[slug]/page.tsx": "needle\n",
    "binary.bin": b"needle\0needle\n",
    "crlf.txt": "first\r\nneedle here\r\nlast\r\n",
    "ignored/x.py": "needle\n",
    "long.txt": "z" * 60_000 + " needle\n",
    "src/app.py": "import os\n\n\ndef needle():\n    return 1\n\n\nneedle()\n",
    "src/deep/util.py": "Needle = 2\n",
    "src/only_root.txt": "needle\n",
    "src/web/view.ts": "needle.html()\n",
    "flags.txt": "use --files or -e needle\n",
}


@pytest.fixture(params=["rg", "python"])
def finder(request: pytest.FixtureRequest) -> Bench:
    """The files above, searched by ripgrep or by the script that stands in for it."""
    return Bench(memory_sandbox(FILES, without="rg" if request.param == "python" else ""))


def entries(text: str) -> list[str]:
    """The lines above the notes."""
    return text.partition("\n\n[")[0].split("\n")


async def test_grep_names_the_files_sorted_and_counts_them(finder: Bench) -> None:
    result = await finder("grep", pattern="needle")

    assert entries(result.text) == [
        ".github/ci.yml",
        "app/[slug]/page.tsx",
        "crlf.txt",
        "flags.txt",
        "keep.log",
        "long.txt",
        "src/app.py",
        "src/only_root.txt",
        "src/web/view.ts",
    ]
    assert "[9 files]" in result.text


async def test_grep_shows_lines_with_file_and_number(finder: Bench) -> None:
    result = await finder("grep", pattern="needle", path="src/app.py", output_mode="content")

    assert entries(result.text) == ["src/app.py:4:def needle():", "src/app.py:8:needle()"]
    assert "[2 matches in 1 file]" in result.text


async def test_grep_shows_lines_around(finder: Bench) -> None:
    result = await finder("grep", pattern="needle", path="src/app.py", output_mode="content", context=1)

    assert entries(result.text) == [
        "src/app.py-3-",
        "src/app.py:4:def needle():",
        "src/app.py-5-    return 1",
        "--",
        "src/app.py-7-",
        "src/app.py:8:needle()",
    ]


async def test_grep_counts(finder: Bench) -> None:
    result = await finder("grep", pattern="needle", path="src", output_mode="count_matches")

    assert entries(result.text) == ["src/app.py:2", "src/only_root.txt:1", "src/web/view.ts:1"]
    assert result.data["matches"] == 4


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"glob": "*.py"}, ["src/app.py"]),
        ({"glob": "*.{ts,tsx}"}, ["app/[slug]/page.tsx", "src/web/view.ts"]),
        ({"glob": "src/*.py"}, ["src/app.py"]),
        ({"glob": "src/**/*.ts"}, ["src/web/view.ts"]),
        ({"glob": "web/*.ts", "path": "src"}, ["src/web/view.ts"]),
        ({"glob": "web/*.ts"}, []),
        ({"glob": "**/*.ts"}, ["src/web/view.ts"]),
        ({"glob": "!*.{txt,ts,tsx,yml,log}"}, ["src/app.py"]),
        ({"glob": "*.log"}, ["keep.log"]),
        ({"type": "py"}, ["src/app.py"]),
        ({"type": "ts", "glob": "*.tsx"}, ["app/[slug]/page.tsx"]),
        ({"path": "src", "ignore_case": True, "type": "py"}, ["src/app.py", "src/deep/util.py"]),
        ({"path": "ignored"}, ["ignored/x.py"]),
        ({"path": ".", "glob": "x.py", "include_ignored": True}, ["ignored/x.py"]),
        ({"path": ".github"}, [".github/ci.yml"]),
        ({"path": "app/[slug]"}, ["app/[slug]/page.tsx"]),
    ],
    ids=str,
)
async def test_grep_looks_where_it_is_told(finder: Bench, arguments: dict[str, object], found: list[str]) -> None:
    result = await finder("grep", "", pattern="needle", **arguments)

    assert result.data["files"] == len(found)
    if found:
        assert entries(result.text) == found
    else:
        assert result.text.startswith("No matches found.")


@pytest.mark.parametrize("pattern", ["--files", "-e needle", "-x", "--"])
async def test_grep_takes_no_pattern_for_an_option(finder: Bench, pattern: str) -> None:
    result = await finder("grep", pattern=pattern, output_mode="content")

    assert result.data["files"] == (0 if pattern == "-x" else 1)


async def test_grep_takes_plain_text_plainly(finder: Bench) -> None:
    plain = await finder("grep", pattern="needle.html()", fixed=True)
    looking_odd = await finder("grep", pattern="need.*html", fixed=True)

    assert entries(plain.text) == ["src/web/view.ts"]
    assert "fixed=false" in looking_odd.text


async def test_grep_matches_ends_of_windows_lines_and_shows_no_carriage_return(finder: Bench) -> None:
    result = await finder("grep", pattern="here$", output_mode="content")

    assert entries(result.text) == ["crlf.txt:2:needle here"]


async def test_grep_spans_lines_when_told(finder: Bench) -> None:
    result = await finder("grep", pattern=r"def needle.*?return", multiline=True, output_mode="content")

    assert entries(result.text) == ["src/app.py:4:def needle():", "src/app.py:5:    return 1"]


async def test_grep_clips_very_long_lines(finder: Bench) -> None:
    result = await finder("grep", pattern="needle", path="long.txt", output_mode="content")

    assert len(result.text) < 1000
    assert result.text.startswith("long.txt:1:zzz")


async def test_a_binary_file_is_named_only_when_asked_for_and_never_shown(finder: Bench) -> None:
    result = await finder("grep", pattern="needle", path="binary.bin", output_mode="content")

    assert entries(result.text) == ["binary.bin: (binary file matches)"]


async def test_a_broken_pattern_is_an_error_and_not_nothing(finder: Bench) -> None:
    error = await finder.fails("grep", pattern="(unclosed")

    assert error.kind == "bad_pattern"
    assert "fixed=true" in error.message


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"path": "none"}, "file_missing"),
        ({"type": "klingon"}, "bad_pattern"),
        ({"glob": "[z-a]*"}, "bad_pattern"),
        ({"glob": "{a,b}" * 60}, "bad_pattern"),
        ({"glob": "{a,b}" * 9, "path": "flags.txt"}, "bad_pattern"),
        ({"offset": 1000}, "past_end"),
        ({"path": "../.."}, "outside_workspace"),
    ],
    ids=str,
)
async def test_grep_says_what_is_wrong(finder: Bench, arguments: dict[str, object], kind: str) -> None:
    outcome = await finder.fails("grep", pattern="needle", **arguments)

    assert outcome.kind == kind


async def test_pages_of_grep_join_and_know_the_total(finder: Bench) -> None:
    whole = await finder("grep", pattern="needle")
    pages = [await finder("grep", pattern="needle", limit=4, offset=offset) for offset in (0, 4, 8)]

    assert [line for page in pages for line in entries(page.text)] == entries(whole.text)
    assert "entries 1–4 of 9, go on with offset=4" in pages[0].text
    assert "entries 9–9 of 9]" in pages[2].text


async def test_our_own_folder_is_hidden_unless_asked_for(finder: Bench) -> None:
    await finder.sandbox.write(".dialtone/outputs/x.txt", b"needle 7\n")

    everywhere = await finder("grep", pattern="needle 7", include_ignored=True)
    there = await finder("grep", pattern="needle 7", path=".dialtone/outputs/x.txt", output_mode="content")

    assert everywhere.data["files"] == 0
    assert entries(there.text) == [".dialtone/outputs/x.txt:1:needle 7"]
    assert ".dialtone" not in (await finder("ls", include_ignored=True)).text
    assert (await finder("glob", pattern="x.txt")).data["total"] == 0


async def test_agentignore_is_honoured(finder: Bench) -> None:
    await finder.sandbox.write(".agentignore", b"src/\n")

    assert "src/" not in (await finder("grep", pattern="needle")).text
    assert "src/" not in (await finder("glob", pattern="**/*.py")).text
    assert "src" not in (await finder("ls")).text


async def test_a_repository_inside_of_the_workspace_has_its_own_rules(finder: Bench) -> None:
    await finder.sandbox.write("repo/.git/HEAD", b"ref: x\n")
    await finder.sandbox.write("repo/.gitignore", b"built/\n")
    await finder.sandbox.write("repo/built/x.js", b"needle\n")
    await finder.sandbox.write("repo/ignored/y.js", b"needle\n")

    listed = (await finder("ls", path="repo", depth=3)).text
    assert "built" not in listed
    assert "y.js" in listed  # the outer repository does not reach in here
    assert "built" not in (await finder("ls", depth=4)).text


async def test_a_repository_in_a_workspace_that_is_none_has_its_rules() -> None:
    files = {"repo/.git/HEAD": "ref: x\n", "repo/.gitignore": "/built\n", "repo/built/x.js": "", "repo/src/built": ""}
    bench = Bench(memory_sandbox(files))

    listed = (await bench("ls", depth=4)).text
    assert "x.js" not in listed
    assert "built  0 B" in listed
    assert set((await bench("glob", pattern="repo/**")).data["paths"]) == {"repo/src/built"}


async def test_a_name_with_a_line_end_is_found_whole(finder: Bench) -> None:
    await finder.sandbox.write("odd/two\nlines.txt", b"one\nneedle\nthree\n")

    content = await finder("grep", pattern="needle", path="odd", output_mode="content", context=1)
    counts = await finder("grep", pattern="needle", path="odd", output_mode="count_matches")
    assert "odd/two\nlines.txt:2:needle" in content.text
    assert counts.text.startswith("odd/two\nlines.txt:1\n")


async def test_a_name_and_a_pattern_made_to_be_slow_are_not() -> None:
    deep = "/".join(["a" * 100] * 40)
    bench = Bench(memory_sandbox({f"{deep}/x": "", ".ignore": f"{'*a' * 20}b\n{'**/a*/' * 9}b\n"}))

    async with asyncio.timeout(20):
        assert (await bench("glob", pattern=f"{'*a' * 20}b")).data["total"] == 0
        assert (await bench("glob", pattern=f"{'**/a*/' * 9}b")).data["total"] == 0
        assert (await bench("ls", depth=10)).data["total"] == 11


async def test_outside_of_a_repository_gitignore_means_nothing() -> None:
    bench = Bench(memory_sandbox({".gitignore": "*.log\n", "a.log": "needle\n"}))

    assert (await bench("grep", pattern="needle")).data["files"] == 1
    assert "a.log" in (await bench("ls")).text


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.py", {"src/app.py", "src/deep/util.py"}),
        ("**/*.py", {"src/app.py", "src/deep/util.py"}),
        ("src/*.py", {"src/app.py"}),
        ("src/**/*.py", {"src/app.py", "src/deep/util.py"}),
        ("src/**", {"src/app.py", "src/deep/util.py", "src/only_root.txt", "src/web/view.ts"}),
        ("*.{ts,tsx}", {"app/[slug]/page.tsx", "src/web/view.ts"}),
        ("{src,app}/**/*.ts*", {"app/[slug]/page.tsx", "src/web/view.ts"}),
        ("src/???.py", {"src/app.py"}),
        ("src/[ab]pp.py", {"src/app.py"}),
        ("src/[!b]pp.py", {"src/app.py"}),
        ("app/[slug]/page.tsx", {"app/[slug]/page.tsx"}),
        ("*.yml", set()),
        (".github/*.yml", {".github/ci.yml"}),
        (".gitignore", {".gitignore"}),
        ("*.log", {"keep.log"}),
        ("./*.txt", {"crlf.txt", "flags.txt", "long.txt"}),
        ("/workspace/src/*.py", {"src/app.py"}),
        ("/workspace/src/app.py", {"src/app.py"}),
        ("nothing*", set()),
        ("src/deep/", {"src/deep/util.py"}),
        ("src[^x]app.py", set()),
    ],
)
async def test_glob_finds_files_by_name(finder: Bench, pattern: str, found: set[str]) -> None:
    result = await finder("glob", pattern=pattern)

    assert set(result.data["paths"]) == found
    assert result.data["total"] == len(found)


async def test_glob_starts_from_a_folder_and_can_see_ignored_files(finder: Bench) -> None:
    assert (await finder("glob", pattern="*.py", path="src/deep")).data["paths"] == ["src/deep/util.py"]
    assert "ignored/x.py" in (await finder("glob", pattern="*.py", include_ignored=True)).data["paths"]


async def test_glob_gives_the_newest_first_and_pages(finder: Bench) -> None:
    await finder.sandbox.write("src/app.py", b"newer\n")

    result = await finder("glob", pattern="src/**", limit=2)
    rest = await finder("glob", pattern="src/**", limit=2, offset=2)

    assert result.data["paths"][0] == "src/app.py"
    assert "files 1–2 of 4, go on with offset=2" in result.text
    assert len({*result.data["paths"], *rest.data["paths"]}) == 4


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"pattern": "*", "path": "none"}, "file_missing"),
        ({"pattern": "*", "path": "flags.txt"}, "not_a_directory"),
        ({"pattern": "/etc/*"}, "outside_workspace"),
        ({"pattern": "../*"}, "outside_workspace"),
        ({"pattern": "*.py", "offset": 99}, "past_end"),
        ({"pattern": "{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}"}, "bad_pattern"),
        ({"pattern": "{,}" * 600}, "bad_pattern"),
        ({"pattern": "[z-a]*"}, "bad_pattern"),
        ({"pattern": "x[!]"}, "bad_pattern"),
    ],
    ids=str,
)
async def test_glob_says_what_is_wrong(finder: Bench, arguments: dict[str, object], kind: str) -> None:
    assert (await finder.fails("glob", **arguments)).kind == kind


async def test_ls_shows_a_tree_without_what_is_ignored(finder: Bench) -> None:
    result = await finder("ls")

    assert result.text.split("\n")[:6] == [
        "./",
        "  .git/",
        "  .github/",
        "    ci.yml  10 B",
        "  .gitignore  40 B",
        "  app/",
    ]
    assert "  src/\n    app.py  " in result.text
    assert "ignored/" not in result.text
    assert "a.log" not in result.text
    assert "keep.log" in result.text
    assert "[4 ignored entries not shown" in result.text
    assert "  ignored/\n    x.py" in (await finder("ls", include_ignored=True)).text


async def test_ls_goes_as_deep_as_told_and_pages(finder: Bench) -> None:
    assert "page.tsx" not in (await finder("ls", depth=2)).text
    assert "      page.tsx  7 B" in (await finder("ls", depth=3)).text
    first = await finder("ls", limit=3)
    assert "entries 1–3 of" in first.text
    assert "offset=3" in first.text
    assert (await finder.fails("ls", offset=999)).kind == "past_end"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("none", "file_missing"), ("flags.txt", "not_a_directory"), ("..", "outside_workspace")],
)
async def test_ls_says_what_is_wrong(finder: Bench, path: str, kind: str) -> None:
    assert (await finder.fails("ls", path=path)).kind == kind


async def test_an_empty_folder_says_so(finder: Bench) -> None:
    await finder.sandbox.make_dir("empty")

    assert (await finder("ls", path="empty")).text == "The folder is empty."


@pytest.fixture
async def real(sandbox: Sandbox) -> Bench:
    """The files above in a real workspace."""
    for path, content in FILES.items():
        await sandbox.write(path, content.encode() if isinstance(content, str) else content)
    return Bench(sandbox)


async def test_searches_work_alike_in_every_sandbox(real: Bench) -> None:
    grep = await real("grep", pattern="needle", glob="*.py", output_mode="content")
    glob = await real("glob", pattern="src/**/*.py")
    ls = await real("ls", path="src", depth=1)

    assert entries(grep.text) == ["src/app.py:4:def needle():", "src/app.py:8:needle()"]
    assert set(glob.data["paths"]) == {"src/app.py", "src/deep/util.py"}
    assert ls.text.split("\n") == ["src/", "  app.py  50 B", "  deep/", "  only_root.txt  7 B", "  web/"]


async def test_links_do_not_lead_a_search_out_or_around(shell: Bench) -> None:
    await shell("bash", command="mkdir d; echo needle > d/a; ln -s .. d/up; ln -s /etc outside")

    assert entries((await shell("grep", pattern="needle|root:")).text) == ["d/a"]
    assert (await shell("glob", pattern="**/*")).data["paths"] == ["d/a"]
    assert "up (symbolic link)" in (await shell("ls", depth=5)).text


@pytest.fixture
def plain() -> TierReport:
    """Found outside of the test's event loop."""
    return report("unsafe_host")


async def test_ignore_files_above_the_workspace_do_not_count(folder: Path, plain: TierReport) -> None:
    (folder / ".git").mkdir()
    (folder / ".gitignore").write_text("*\n")
    settings = SandboxSettings(mode="unsafe_host")
    async with LocalProvider(settings, data_dir=folder / "data", report=plain) as provider:
        bench = Bench(await provider.open(ThreadId("above")))
        await bench.sandbox.write("a.py", b"needle\n")

        assert (await bench("grep", pattern="needle")).data["files"] == 1
        assert (await bench("glob", pattern="*.py")).data["total"] == 1
