"""Providers' words as errors of our tree."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from workflow.core.errors import ContextOverflow, ModelError, ModelOverloaded, ModelRefused
from workflow.core.redact import Redactor
from workflow.llm.provider_errors import from_response, from_stream, retry_after_s

NO_SECRETS = Redactor()


def body(message: str, **fields: object) -> bytes:
    return json.dumps({"error": {"message": message, **fields}}).encode()


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (
            400,
            body("This model's maximum context length is 128000 tokens.", code="context_length_exceeded"),
            ContextOverflow,
        ),
        (400, body("prompt is too long: 210000 tokens > 200000 maximum"), ContextOverflow),
        (400, body("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"), ContextOverflow),
        (400, body("the request exceeds the available context size (8192 tokens)"), ContextOverflow),
        (400, body("The input token count (1200000) exceeds the maximum number of tokens allowed"), ContextOverflow),
        (413, b"<html>413 Request Entity Too Large</html>", ContextOverflow),
        (
            429,
            body("Request too large for gpt-5 on tokens per min (TPM): Limit 30000, Requested 50000"),
            ContextOverflow,
        ),
        (429, body("Rate limit reached"), ModelOverloaded),
        (429, body("ThrottlingException: Too many tokens, please wait before trying again."), ModelOverloaded),
        (429, body("Too many tokens per day, please wait before trying again."), ModelOverloaded),
        (400, body("too many tokens: the prompt cannot exceed 4081"), ContextOverflow),
        (
            429,
            body("Rate limit reached. Please try again in 20s. Add a payment method at /account/billing"),
            ModelOverloaded,
        ),
        (429, body("Check your plan and billing details. Please retry in 32.5s.", code=429), ModelOverloaded),
        (429, body("Check your plan and billing. Try again in 1h", code="insufficient_quota"), ModelRefused),
        (429, b"[" * 60_000, ModelOverloaded),
        (400, body("half \ud800"), ModelRefused),
        (429, body("You exceeded your current quota", code="insufficient_quota"), ModelRefused),
        (400, body("Your credit balance is too low to access the API"), ModelRefused),
        (401, body("Incorrect API key provided"), ModelRefused),
        (404, body("The model `gpt-9` does not exist"), ModelRefused),
        (
            400,
            json.dumps([{"error": {"message": "API key not valid", "status": "INVALID_ARGUMENT"}}]).encode(),
            ModelRefused,
        ),
        (408, b"", ModelOverloaded),
        (529, body("Overloaded", type="overloaded_error"), ModelOverloaded),
        (502, b"<html><head><title>502 Bad Gateway</title></head></html>", ModelOverloaded),
        (301, b"moved", ModelError),
        (200, body("Provider returned error", code=502), ModelOverloaded),
        (200, b"{}", ModelOverloaded),
    ],
)
def test_an_answer_that_is_no_stream(status: int, content: bytes, kind: type[ModelError]) -> None:
    assert type(from_response(status, content, {}, NO_SECRETS)) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, ModelOverloaded),
        ({"message": "The server had an error", "type": "server_error"}, ModelOverloaded),
        ({"code": 429, "message": "Rate limited"}, ModelOverloaded),
        ({"type": "invalid_request_error", "message": "nope"}, ModelRefused),
        ({"code": 400, "message": "prompt is too long"}, ContextOverflow),
        ("just words", ModelOverloaded),
    ],
)
def test_an_error_within_a_stream(error: object, kind: type[ModelError]) -> None:
    assert type(from_stream(error, NO_SECRETS)) is kind


@pytest.mark.parametrize(
    ("words", "wait_s"),
    [
        ("Please try again in 20s.", 20),
        ("Please try again in 1m30.5s. Visit", 90.5),
        ("please retry in 250ms", 0.25),
        ("try again in 2h3m", 7380),
        ("try again later", None),
        ("try again in a minute", None),
    ],
)
def test_the_wait_is_read_from_the_words_where_no_header_has_it(words: str, wait_s: float | None) -> None:
    error = from_response(429, body(words), {}, NO_SECRETS)
    assert isinstance(error, ModelOverloaded)
    assert error.retry_after_s == wait_s


def test_the_header_has_the_last_word_on_the_wait() -> None:
    error = from_response(429, body("Please try again in 20s."), {"retry-after": "3"}, NO_SECRETS)
    assert isinstance(error, ModelOverloaded)
    assert error.retry_after_s == 3


def test_no_key_is_left_in_a_message() -> None:
    key = "my-own-secret-key-value"
    error = from_response(401, body(f"Incorrect API key provided: {key}, sk-ant-{'a' * 30}"), {}, Redactor([key]))
    assert key not in error.message
    assert "sk-ant" not in error.message


def test_a_message_is_short() -> None:
    assert len(from_response(400, b"x" * 100_000, {}, NO_SECRETS).message) < 1000


def test_the_wait_is_read_in_all_its_forms() -> None:
    assert retry_after_s({"retry-after": "7"}) == 7
    assert retry_after_s({"retry-after": "0.5"}) == 0.5
    assert retry_after_s({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert retry_after_s({"retry-after": later}) == pytest.approx(90, abs=2)
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({}) is None
