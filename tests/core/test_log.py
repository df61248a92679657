"""What a log line promises: it can be read, it says whose it is, and it holds no secret."""

import asyncio
import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.core.config import LogSettings
from workflow.core.log import bind, configure
from workflow.core.redact import MASK, Redactor

CANARY = "canary-5f0d2b7c"
Format = Literal["color", "json"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture(params=["color", "json"])
def log(request: pytest.FixtureRequest) -> io.StringIO:
    stream = io.StringIO()
    configure(LogSettings(level="DEBUG", format=request.param), "gateway", secrets=[CANARY], stream=stream)
    return stream


def last(stream: io.StringIO) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(stream.getvalue().splitlines()[-1])
    return line


def test_a_terminal_gets_colours_and_a_pipe_gets_json() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    configure(LogSettings(), "gateway", stream=terminal)
    logging.getLogger("x").info("hello")
    configure(LogSettings(), "gateway", stream=pipe)
    logging.getLogger("x").info("hello")
    assert "\033[" in terminal.getvalue()
    assert last(pipe)["message"] == "hello"


def test_a_json_line_says_when_who_what_and_for_whom() -> None:
    stream = io.StringIO()
    configure(LogSettings(format="json"), "worker", stream=stream)
    with bind(thread_id="t1", run_id="r1"), bind(request_id="q1"):
        logging.getLogger("modem.tasks").warning("slow: %d ms", 7, extra={"turn": 3})
    line = last(stream)
    assert line.pop("at").endswith("+00:00")
    assert line == {
        "level": "WARNING", "component": "worker", "logger": "modem.tasks", "message": "slow: 7 ms",
        "thread_id": "t1", "run_id": "r1", "request_id": "q1", "turn": 3,
    }  # fmt: skip


def test_a_colour_line_shows_the_ids_too() -> None:
    stream = io.StringIO()
    configure(LogSettings(format="color"), "worker", stream=stream)
    with bind(thread_id="t1"):
        logging.getLogger("x").info("hello")
    assert "thread_id=t1" in stream.getvalue()


async def test_ids_stay_with_their_task_and_end_with_their_block() -> None:
    stream = io.StringIO()
    configure(LogSettings(format="json"), "worker", stream=stream)

    async def work(run_id: str) -> None:
        with bind(run_id=run_id):
            await asyncio.sleep(0)
            logging.getLogger("x").info("from %s", run_id)

    await asyncio.gather(*(work(f"r{n}") for n in range(20)))
    logging.getLogger("x").info("after")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all(line["message"] == f"from {line['run_id']}" for line in lines[:-1])
    assert "run_id" not in lines[-1]


def test_records_below_the_level_and_chatter_of_libraries_are_left_out() -> None:
    stream = io.StringIO()
    configure(LogSettings(format="json"), "worker", stream=stream)
    logging.getLogger("x").debug("no")
    logging.getLogger("httpx").info("no")
    logging.getLogger("httpx").warning("yes")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["yes"]


def test_configuring_again_replaces_the_handler() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure(LogSettings(format="json"), "a", stream=first)
    configure(LogSettings(format="json"), "b", stream=second)
    logging.getLogger("x").info("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def in_the_message(text: str) -> None:
    logging.getLogger("x").info("key is %s", text)


def in_an_extra_field(text: str) -> None:
    logging.getLogger("x").info("call", extra={"headers": {"x": [text]}})


def in_a_traceback(text: str) -> None:
    try:
        raise ValueError(f"refused {text}")
    except ValueError:
        logging.getLogger("x").exception("failed")


def in_a_bound_id(text: str) -> None:
    with bind(request_id=text):
        logging.getLogger("x").info("hello")


def in_an_object(text: str) -> None:
    logging.getLogger("x").info("%r", {"nested": (text, {"deep": text})})


@pytest.mark.parametrize("write", [in_the_message, in_an_extra_field, in_a_traceback, in_a_bound_id, in_an_object])
def test_a_known_secret_never_reaches_the_log(log: io.StringIO, write: Callable[[str], None]) -> None:
    write(CANARY)
    assert log.getvalue()
    assert MASK in log.getvalue()
    assert CANARY not in log.getvalue()


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "GITHUB_TOKEN", "DIALTONE_WEBHOOKS__SECRET", "DB_PASSWORD", "SENTRY_DSN"]
)
@pytest.mark.parametrize("value", ['pa"ss\\word/1', "ünïcode-key", "plain-value-9", "two\nlines-of-key"])
@pytest.mark.parametrize("kind", ["color", "json"])
def test_values_of_secret_variables_are_hidden_however_they_are_quoted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, kind: Format
) -> None:
    monkeypatch.setenv(name, value)
    stream = io.StringIO()
    configure(LogSettings(format=kind), "gateway", stream=stream)
    logging.getLogger("x").warning("%s %s %s", value, json.dumps(value), quote(value, safe=""), extra={"field": value})
    text = stream.getvalue()
    assert text.count(MASK) >= 4
    for form in (value, json.dumps(value)[1:-1], quote(value, safe="")):
        assert form not in text


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer canaryTOKEN12345",
        "{'authorization': 'Bearer canaryTOKEN12345'}",
        '{"Authorization": "Basic canaryTOKEN12345=="}',
        "[(b'authorization', b'Bearer canaryTOKEN12345')]",
        "(b'authorization', b'canaryTOKEN12345')",
        "Authorization: canaryTOKEN12345",
        "curl -H 'authorization:token canaryTOKEN12345'",
        "Cookie: session=canaryTOKEN12345; a=b",
        "Set-Cookie: session=canaryTOKEN12345",
        "x-api-key: canaryTOKEN12345",
        '{"api_key": "canaryTOKEN12345"}',
        "api_key=canaryTOKEN12345&x=1",
        "password='canaryTOKEN12345'",
        "redis://user:canaryTOKEN12345@host:6379/0",
        "redis://:canaryTOKEN12345@host:6379/0",
        "GET /api/agent/t1/stream?ticket=canaryTOKEN12345&last_id=1-2",
        "sk-ant-api03-canaryTOKEN12345canaryTOKEN12345",
        "sk-proj-canaryTOKEN12345canaryTOKEN12345",
        "ghp_canaryTOKEN12345canaryTOKEN12345abcd",
        "AKIACANARYTOKEN12345",
        "eyJhbGciOiJIUzI1NiJ9.eyJjYW5hcnkiOjEyMzQ1fQ.canaryTOKEN12345",
        "whsec_canaryTOKEN12345canaryTOKEN12345",
    ],
)
def test_what_looks_like_a_credential_is_hidden(text: str) -> None:
    shown = Redactor()(text)
    assert MASK in shown
    assert "TOKEN12345" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "run r_01 finished: 1234 tokens, 0.02 USD",
        "GET /api/agent/thr_1/stream?last_id=1700000000000-5&from=start 200",
        "basic authentication is off",
        "the bearer of this message",
        "redis://localhost:6379/0",
        "http://127.0.0.1:8080/docs",
        "task-1 risk-free disk-usage-report-for-everyone",
        "wrote sketch.py and monkey.txt",
        "2026-11-21T07:00:00+00:00",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert Redactor(["abc"])(text) == text


@given(st.text())
def test_a_line_stays_one_json_object_whatever_it_says(text: str) -> None:
    stream = io.StringIO()
    configure(LogSettings(format="json"), "gateway", stream=stream)
    logging.getLogger("x").info("%s", text, extra={"field": text})
    assert stream.getvalue().count("\n") == 1
    json.loads(stream.getvalue())


def test_a_secret_inside_json_does_not_break_the_line() -> None:
    stream = io.StringIO()
    configure(LogSettings(format="json"), "gateway", stream=stream)
    logging.getLogger("x").info("%s", '{"Authorization": "Bearer abcdef123456"}', extra={"api_key": 'abc"def\\'})
    logging.getLogger("x").info("nested", extra={"detail": '{"api_key": "abc\\"def"}', "n": float("nan")})
    assert "abcdef" not in stream.getvalue()
    for line in stream.getvalue().splitlines():
        json.loads(line)


def test_a_record_that_cannot_be_formatted_is_reported_without_its_arguments() -> None:
    log = io.StringIO()
    configure(LogSettings(), "gateway", stream=log)
    logging.getLogger("x").info("%d", "hunter2hunter2")
    assert "unreadable log record of x" in log.getvalue()
    assert "hunter2" not in log.getvalue()


@pytest.mark.parametrize("kind", ["color", "json"])
def test_lone_surrogates_do_not_stop_the_log(kind: Format) -> None:
    log = io.StringIO()
    configure(LogSettings(format=kind), "gateway", stream=log)
    logging.getLogger("x").info("name %s", "\udc80")
    assert "name" in log.getvalue()


@pytest.mark.parametrize(
    "piece", ["a.", "a://:", "eyJaaaaaaaa-", "eyJaaaaaaaa.", "bearer ", "authorization:", "?key", "sk-aaaa "]
)
def test_no_line_makes_redaction_slow(piece: str) -> None:
    started = time.process_time()
    Redactor(["some-known-value"])(piece * (100_000 // len(piece)))
    assert time.process_time() - started < 2
