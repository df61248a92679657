"""What the documents and schemas say is what the code does."""

import json
from pathlib import Path

import httpx
import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest

from scripts import gen_event_docs
from scripts.event_samples import SAMPLES, missing
from tests.gateway.playing import Worker
from tests.gateway.reading import Reader
from tests.gateway.serving import Gateway
from workflow.core.events import Event
from workflow.core.ids import ItemId

DOCS = Path(__file__).parents[2] / "docs"


def test_event_page_is_what_the_classes_say() -> None:
    assert gen_event_docs.main(["--check"]) == 0


def test_every_kind_of_event_has_an_example() -> None:
    assert missing() == set()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: str(sample.type))
async def test_examples_fit_the_schema_that_is_served(http: httpx.AsyncClient, sample: Event) -> None:
    schema = (await http.get("/events/schema.json")).json()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(sample.model_dump_json()), schema)


@pytest.mark.parametrize("name", gen_event_docs.streams())
async def test_example_streams_fit_the_schema_that_is_served(http: httpx.AsyncClient, name: str) -> None:
    schema = (await http.get("/events/schema.json")).json()
    for frame in gen_event_docs.streams()[name]:
        jsonschema.validate(json.loads(frame.data), {"$defs": schema["$defs"], **schema["x-stream"][frame.name]})


async def test_everything_that_a_stream_says_fits_its_schema(
    gateway: Gateway, worker: Worker, http: httpx.AsyncClient
) -> None:
    schema = (await http.get("/events/schema.json")).json()
    thread = await worker.thread()
    turn = await worker.running(thread)
    await worker.open(thread, "the next")
    await turn.grow(ItemId("m1"), 0, "Hel")
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream?last_id=1-9") as reader:
        await reader.until_event("waiting")
        await turn.grow(ItemId("m1"), 3, "lo")
        await turn.finish()
        await reader.until_event("task_agent_execute")
    names = set()
    for message, body in zip(reader.messages, reader.data, strict=True):
        names.add(message.event)
        jsonschema.validate(body, {"$defs": schema["$defs"], **schema["x-stream"][message.event]})
    assert names >= {"reset", "waiting", "task_agent_execute"}
    assert set(schema["x-stream"]) == {"task_agent_execute", "waiting", "keep_alive", "gap", "reset", "error"}


def test_every_route_is_in_the_api_page(gateway: Gateway) -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    for path, methods in gateway.app.openapi()["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in text, f"{method.upper()} {path} is missing in docs/api.md"
