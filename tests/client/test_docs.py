"""The examples of docs/client.md run as they stand, but for the address."""

import re
from pathlib import Path

import pytest

import dialtone
from scripts import gen_sync_client
from tests.client.stub_gateway import StubGateway, UntilAnswered
from workflow.core.events import ApprovalRequested, Message, RunFinished
from workflow.core.ids import ItemId, ThreadId

DOCUMENT = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
T = ThreadId("")


def test_the_synchronous_client_is_made_from_the_asynchronous_one() -> None:
    assert gen_sync_client.main(["--check"]) == 0


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_run(gateway: StubGateway, capsys: pytest.CaptureFixture[str], example: str) -> None:
    question = ApprovalRequested(thread_id=T, question_id="q", kind="approval", prompt="?", choices=("allow", "deny"))
    gateway.scripts = {
        "Write a report on the files here": [RunFinished(thread_id=T)],
        "Add them up": [
            question,
            UntilAnswered("q"),
            Message(thread_id=T, item=ItemId("m"), text="It is six."),
            RunFinished(thread_id=T),
        ],
    }
    code = example.replace("http://127.0.0.1:8080", gateway.url)
    exec(compile(code, "docs/client.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out in ("run.queued\nrun.finished\n", "It is six.\n")


def test_every_method_is_in_the_table() -> None:
    methods = [name for name in vars(dialtone.AsyncClient) if not name.startswith("_") and name != "close"]
    assert [name for name in methods if f"`{name}(" not in DOCUMENT and f"`{name}`" not in DOCUMENT] == []
