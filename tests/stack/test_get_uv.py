"""The installer of uv, against package indexes on this machine."""

import hashlib
import http.server
import io
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import get_uv

PROGRAM = b"#!/bin/sh\necho uv 0\n"


@pytest.fixture
def wheel() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"uv-{get_uv.VERSION}.data/scripts/uv", PROGRAM)
    return file.getvalue()


@pytest.fixture(autouse=True)
def pinned(wheel: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = ("any_1_0.whl", hashlib.sha256(wheel).hexdigest())
    monkeypatch.setattr(get_uv, "WHEELS", {get_uv.this_system(): pin})
    monkeypatch.setattr(get_uv, "TRIES", 1)
    for name in get_uv.INDEX_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "argv", ["get_uv.py", str(tmp_path / "uv")])
    return tmp_path / "uv"


def page(tmp_path: Path, wheel: bytes) -> str:
    """A simple index in files, with decoys."""
    name = f"uv-{get_uv.VERSION}-py3-none-any_1_0.whl"
    (tmp_path / "simple" / "uv").mkdir(parents=True)
    (tmp_path / name).write_bytes(wheel)
    links = f'<a href="../../uv-0.1-py3-none-any_1_0.whl">old</a> <a href="../../{name}#sha256=x" data-a="&gt;">n</a>'
    (tmp_path / "simple" / "uv" / "index.html").write_text(links)
    return name


class Index(http.server.SimpleHTTPRequestHandler):
    directory: str
    password = ""

    def do_GET(self) -> None:
        if self.password and self.headers.get("Authorization") != f"Basic {self.password}":
            self.send_error(401)
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    def handler(*rest: object) -> Index:
        return Index(*rest, directory=str(tmp_path))  # type: ignore[arg-type]  # what the server hands over

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.mark.parametrize("variable", get_uv.INDEX_VARIABLES)
def test_uv_comes_from_the_index_that_the_environment_names(
    tmp_path: Path,
    folder: Path,
    wheel: bytes,
    server: http.server.ThreadingHTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    page(tmp_path, wheel)
    monkeypatch.setenv(variable, f"http://127.0.0.1:{server.server_port}/simple/")
    assert get_uv.main() == 0
    assert (folder / "uv").read_bytes() == PROGRAM
    assert (folder / "uv").stat().st_mode & 0o777 == 0o755


def test_user_and_password_of_an_index_are_sent_and_not_shown(
    tmp_path: Path,
    folder: Path,
    wheel: bytes,
    server: http.server.ThreadingHTTPServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page(tmp_path, wheel)
    monkeypatch.setattr(Index, "password", "bWU6cGFzcyB3b3Jk")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:pass%20word@127.0.0.1:{server.server_port}/simple")
    assert get_uv.main() == 0
    assert "pass" not in get_uv.shown(get_uv.index_url())


def test_a_wheel_with_another_hash_is_never_used(
    tmp_path: Path,
    folder: Path,
    wheel: bytes,
    server: http.server.ThreadingHTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = page(tmp_path, wheel)
    (tmp_path / name).write_bytes(wheel + b"more")
    monkeypatch.setattr(get_uv, "from_pip", lambda _: None)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    assert get_uv.main() == 1
    assert not folder.exists()
    assert "it was not used" in capsys.readouterr().err


def test_an_index_that_does_not_answer_is_said_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], unused_tcp_port: int
) -> None:
    monkeypatch.setenv("UV_INDEX_URL", f"http://127.0.0.1:{unused_tcp_port}/simple")
    monkeypatch.setattr(get_uv, "from_pip", lambda _: None)
    assert get_uv.main() == 1
    assert "could not be fetched" in capsys.readouterr().err


def test_pip_is_the_second_try(
    folder: Path, wheel: bytes, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setenv("UV_INDEX_URL", f"http://127.0.0.1:{unused_tcp_port}/simple")
    monkeypatch.setattr(get_uv, "from_pip", lambda _: wheel)
    assert get_uv.main() == 0
    assert (folder / "uv").read_bytes() == PROGRAM


def test_a_machine_without_a_wheel_is_told_to_install_by_hand(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(get_uv, "this_system", lambda: "plan9-mips")
    assert get_uv.main() == 1
    assert "no uv for plan9-mips" in capsys.readouterr().err
