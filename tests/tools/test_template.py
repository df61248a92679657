"""Project templates: strict about variables, never over existing files, and what they make works."""

from pathlib import Path
from typing import Any

import pytest

from tests.tools.harness import Bench, memory_sandbox
from workflow.core.config import ToolSettings
from workflow.core.events import FileChanged
from workflow.sandboxes.memory import MemorySandbox
from workflow.tools.build import build_registry
from workflow.tools.rendering import templates

VALUES: dict[str, dict[str, str]] = {
    "python-cli": {"name": "word-count", "package": "word_count"},
    "static-site": {"title": "Birds of the lake"},
    "fastapi-service": {"name": "note-service", "package": "note_service"},
}


async def files_of(bench: Bench, folder: str = ".") -> dict[str, str]:
    found = await bench.sandbox.list(folder, depth=10)
    return {stat.path: (await bench.sandbox.read(stat.path)).decode() for stat in found if stat.kind == "file"}


async def test_the_list_tells_all_that_is_needed_to_apply() -> None:
    result = await Bench(MemorySandbox())("use_template", action="list")

    assert {row["name"] for row in result.data["templates"]} == set(VALUES)
    for name, values in VALUES.items():
        assert name in result.text
        assert all(f"    {variable}: " in result.text for variable in values)


@pytest.mark.parametrize("name", VALUES)
async def test_a_template_is_written_without_a_marker_left(name: str) -> None:
    bench = Bench(MemorySandbox())

    result = await bench("use_template", action="apply", name=name, path="new", variables=VALUES[name])

    files = await files_of(bench)
    assert sorted(files) == sorted(result.data["files"])
    assert all(path.startswith("new/") for path in files)
    assert not any("{{" in path or "{{" in text or ".tmpl" in path for path, text in files.items())
    assert any(next(iter(VALUES[name].values())) in text for text in files.values())
    assert len(result.events) == len(files)
    assert all(isinstance(event, FileChanged) for event in result.events)
    assert result.data["version"] == "1.0.0"
    assert len(result.data["hash"]) == 64


async def test_the_command_line_program_runs_and_its_tests_pass() -> None:
    bench = Bench(memory_sandbox())
    result = await bench("use_template", action="apply", name="python-cli", path="new", variables=VALUES["python-cli"])

    for command in result.data["commands"]:
        ran = await bench("bash", command=f"cd new && {command}; cd ..")
        assert ran.ok, ran.text
    greeted = await bench("bash", command="cd new && PYTHONPATH=src python3 -m word_count --name Ada")
    assert greeted.text.startswith("Hello, Ada!")


async def test_the_web_service_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(MemorySandbox())
    await bench("use_template", action="apply", name="fastapi-service", variables=VALUES["fastapi-service"])
    for path, text in (await files_of(bench)).items():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))

    from httpx import ASGITransport, AsyncClient
    from note_service.app import create_app  # type: ignore[import-not-found]  # just written

    async with AsyncClient(transport=ASGITransport(create_app()), base_url="http://test") as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        note = (await client.post("/notes", json={"text": "milk"})).json()
        assert (await client.get(f"/notes/{note['id']}")).json() == note
        assert (await client.delete(f"/notes/{note['id']}")).status_code == 204
        assert (await client.get(f"/notes/{note['id']}")).status_code == 404


@pytest.mark.parametrize(
    ("name", "variables", "says"),
    [
        ("python-cli", {"name": "x"}, "package is needed"),
        ("python-cli", {"name": "Not Good", "package": "x"}, "name must match"),
        ("python-cli", {"name": "x", "package": "x", "colour": "red"}, "colour is not a variable"),
        ("static-site", {"title": "<script>"}, "title must match"),
        ("static-site", {"title": "a\nb"}, "title must match"),
        ("python-cli", {"name": "x", "package": "x", "summary": 'quote " breaks TOML'}, "summary must match"),
    ],
)
async def test_variables_are_checked_before_anything_is_written(
    name: str, variables: dict[str, str], says: str
) -> None:
    bench = Bench(MemorySandbox())

    error = await bench.fails("use_template", action="apply", name=name, variables=variables)

    assert error.kind == "bad_variables"
    assert says in error.message
    assert await files_of(bench) == {}


async def test_an_unknown_template_names_the_known() -> None:
    error = await Bench(MemorySandbox()).fails("use_template", action="apply", name="rails")

    assert error.kind == "unknown_template"
    assert "python-cli" in error.message


async def test_existing_files_are_never_replaced() -> None:
    bench = Bench(MemorySandbox({"new/README.md": "mine\n", "new/other": "mine\n"}))

    error = await bench.fails(
        "use_template", action="apply", name="python-cli", path="new", variables=VALUES["python-cli"]
    )

    assert error.kind == "exists"
    assert "new/README.md" in error.message
    assert await files_of(bench) == {"new/README.md": "mine\n", "new/other": "mine\n"}


async def test_a_repeat_is_recognised_and_logged_again_if_the_log_missed_it() -> None:
    bench = Bench(MemorySandbox())
    asked: dict[str, Any] = {"action": "apply", "name": "static-site", "variables": VALUES["static-site"]}
    first = await bench("use_template", **asked)
    second = await bench("use_template", **asked)
    bench.state.files.clear()
    third = await bench("use_template", **asked)

    assert "0 of 4 files were new" in second.text
    assert second.events == ()
    assert len(third.events) == len(first.events)
    assert second.data["hash"] == first.data["hash"]


async def test_a_place_outside_is_refused() -> None:
    error = await Bench(MemorySandbox()).fails(
        "use_template", action="apply", name="static-site", path="../x", variables=VALUES["static-site"]
    )

    assert error.kind == "outside_workspace"


def own_template(folder: Path, *, manifest: str, **files: str) -> Bench:
    """A workspace where `folder` holds the operator's template `own`."""
    root = folder / "own"
    (root / "files").mkdir(parents=True)
    (root / "template.toml").write_text(manifest)
    for name, text in files.items():
        (root / "files" / name.replace("__", ".")).write_text(text)
    registry, _ = build_registry(ToolSettings(template_folder=str(folder)), environ={})
    return Bench(MemorySandbox(), registry=registry)


MANIFEST = 'version = "2"\ndescription = "Own"\n[variables.who]\ndescription = "name"\npattern = ".*"\n'


async def test_the_operators_templates_are_there_too(tmp_path: Path) -> None:
    bench = own_template(
        tmp_path, manifest=MANIFEST, a__txt="hi {{ who }} and {{who}} at ${{ matrix.os }} {{}} {{ x.y }}"
    )

    await bench("use_template", action="apply", name="own", variables={"who": "{{ who }} $& \\1"})

    # A value that looks like a marker stays as it is, and so does what is no marker.
    text = (await files_of(bench))["a.txt"]
    assert text == "hi {{ who }} $& \\1 and {{ who }} $& \\1 at ${{ matrix.os }} {{}} {{ x.y }}"
    assert set(VALUES) < set(templates(str(tmp_path)))


@pytest.mark.parametrize("who", ["a", "./a"])
async def test_two_files_that_would_be_one_are_refused(tmp_path: Path, who: str) -> None:
    bench = own_template(tmp_path, manifest=MANIFEST, **{"a__txt": "one", "{{ who }}__txt": "two"})

    error = await bench.fails("use_template", action="apply", name="own", variables={"who": who})

    assert error.kind == "duplicate_path"
    assert await files_of(bench) == {}


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        (MANIFEST, "uses {{ undeclared }}"),
        ("not TOML at all [", "x"),
        ('version = "1"\n', "x"),
        (MANIFEST + "[variables.b]\ndescription = 1\n", "x"),
    ],
)
async def test_a_broken_template_is_named_and_nothing_written(tmp_path: Path, manifest: str, text: str) -> None:
    bench = own_template(tmp_path, manifest=manifest, a=text)

    error = await bench.fails("use_template", action="apply", name="own", variables={"who": "me"})

    assert error.kind == "bad_template"
    assert await files_of(bench) == {}
    assert "python-cli" in (await bench("use_template", action="list")).text
