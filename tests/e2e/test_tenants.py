"""Two tenants with keys on the real line: what one has is unknown to the other, by every way that leads to files."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from websockets.asyncio.client import connect

from dialtone.client import AsyncClient
from gateway.keyring import KeyRing
from tests.line import Line, bash, script
from workflow.core.events import ApprovalRequested, PreviewExposed, WorkspaceSaved
from workflow.core.ids import TenantId, UserId

SECRET = "the recipe of acme"


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with Line(settings={"DIALTONE_AUTH__MODE": "on"}) as line:
        yield line.start()


@dataclass
class Person:
    """Somebody with a key, and a thread with a saved file, a link to a server, and a run that waits for an answer."""

    client: AsyncClient
    http: httpx.AsyncClient
    thread: str = ""
    event: str = ""
    later: str = ""
    preview: str = ""
    run: str = ""
    question: str = ""
    secret: str = ""

    async def work(self) -> None:
        self.thread = await self.client.initiate(title=self.secret)
        await self.client.put_file(self.thread, "secret.txt", content=self.secret.encode())
        turns = (
            bash("exec python3 -m http.server 8123", background=True),
            bash(f"echo {self.secret} more > more.txt"),
            {"text": "", "tool_calls": [{"name": "url_expose", "arguments": {"port": 8123}}]},
            {"text": "", "tool_calls": [{"name": "ask_person", "arguments": {"question": self.secret}}]},
            {"text": "Done."},
        )
        self.run = (await self.client.execute(self.thread, script(*turns))).run_id
        async for event in self.client.stream(self.thread, run_id=self.run):
            match event:
                case PreviewExposed():
                    self.preview = event.preview_id
                case WorkspaceSaved():
                    self.event, self.later = self.event or event.id, event.id
                case ApprovalRequested():
                    self.question = event.question_id
                    return
        raise AssertionError("the run never asked")

    async def state(self) -> list[Any]:
        """All that can be seen of it, with its owner's eyes."""
        urls = ["", "/files?depth=20", f"/files?at={self.event}", "/files/secret.txt", "/runs", "/previews", "/state"]
        answers = [await self.http.get(f"/api/agent/{self.thread}{url}") for url in urls]
        assert {answer.status_code for answer in answers} == {200}, [answer.text[:300] for answer in answers]
        return [answer.text for answer in answers] + [(await self.http.get("/api/agent")).text]


@pytest.fixture
async def people(line: Line) -> AsyncIterator[tuple[Person, Person]]:
    async with AsyncExitStack() as stack, asyncio.timeout(30):
        people = []
        for tenant in ("acme", "evil"):
            ring = KeyRing(line.folder / "data" / "keys.json")
            key = ring.new(tenant=TenantId(tenant), user=UserId("u"), scopes=frozenset({"read", "write"}))
            headers = {"Authorization": f"Bearer {key}"}
            http = httpx.AsyncClient(base_url=line.url, headers=headers, trust_env=False, timeout=30)
            client = AsyncClient(line.url, key)
            person = Person(await stack.enter_async_context(client), await stack.enter_async_context(http))
            person.secret = f"the recipe of {tenant}"
            people.append(person)
        await asyncio.sleep(1.1)  # a gateway looks at the keys once a second
        for person in people:
            await person.work()
        yield people[0], people[1]


def attempts(alice: Person, eve: Person) -> Iterator[tuple[str, str, Any]]:
    """Requests of Eve's for what is Alice's: at Alice's thread, and at her own with Alice's ids."""
    theirs, mine = f"/api/agent/{alice.thread}", f"/api/agent/{eve.thread}"
    event, event_body = alice.event, {"event": alice.event}
    for place in (theirs, mine):
        for way in (f"/files?at={event}", f"/files/secret.txt?at={event}", f"/diff?from={event}"):
            yield "GET", place + way, None
        yield "GET", f"{place}/diff?from={eve.event if place == mine else event}&to={alice.later}", None
        yield "POST", f"{place}/restore", event_body
        yield "POST", f"{place}/fork", event_body
        yield "GET", f"{place}/runs/{alice.run}", None
        yield "GET", f"{place}/stream?run_id={alice.run}", None
        yield "POST", f"{place}/runs/{alice.run}/cancel", {}
        yield "POST", f"{place}/runs/{alice.run}/steer", {"text": "x"}
    for way in ("", "/files", "/files?depth=20", "/files/secret.txt", "/files/none", "/archive", "/archive?format=zip"):
        yield "GET", theirs + way, None
    for way in ("/previews", "/stream", "/state", "/runs"):
        yield "GET", theirs + way, None
    for name in ("secret.txt", "new/file"):
        yield "PUT", f"{theirs}/files/{name}", b"stolen"
        yield "DELETE", f"{theirs}/files/{name}", None
    yield "DELETE", f"{theirs}/previews/{alice.preview}", None
    yield "POST", f"{theirs}/questions/{alice.question}/answer", {"answer": "x"}
    yield "POST", f"{theirs}/execute", {"task": "x"}
    yield "DELETE", theirs, None


async def test_what_is_another_tenants_is_unknown_and_stays_as_it_is(line: Line, people: tuple[Person, Person]) -> None:
    alice, eve = people
    before, workspaces = await alice.state(), sorted((line.folder / "data" / "workspaces").iterdir())
    for method, url, body in attempts(alice, eve):
        content, form = (body, None) if isinstance(body, bytes) else (None, body)
        answer = await eve.http.request(method, url, content=content, json=form)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), f"{method} {url}: {answer.text}"
        assert SECRET not in answer.text
    for own in (f"previews/{alice.preview}", f"files/..%2F{alice.thread}%2Fsecret.txt"):  # of that name is nothing here
        await eve.http.delete(f"/api/agent/{eve.thread}/{own}")
    assert await alice.state() == before
    assert sorted((line.folder / "data" / "workspaces").iterdir()) == workspaces


async def test_ones_own_socket_takes_no_command_about_another_tenants_run(people: tuple[Person, Person]) -> None:
    alice, eve = people
    before = await alice.state()
    commands = [
        {"command": "cancel", "run_id": alice.run},
        {"command": "steer", "run_id": alice.run, "text": "x"},
        {"command": "answer", "question_id": alice.question, "answer": "x"},
    ]
    said = []
    address = str(eve.http.base_url).replace("http", "ws") + f"/api/agent/{eve.thread}/ws?last_id={eve.later}"
    key = {"Authorization": eve.http.headers["Authorization"]}
    async with connect(address, additional_headers=key, proxy=None) as socket, asyncio.timeout(10):
        for number, command in enumerate(commands):
            await socket.send(json.dumps(command | {"id": str(number)}))
            while True:
                message = json.loads(await socket.recv())
                if message["event"] in {"reply", "error"}:
                    break
            said.append((message["event"], message["data"]["id"], message["data"].get("code")))
    assert said == [("error", "0", "not_found"), ("error", "1", "not_found"), ("error", "2", "conflict")]
    assert await alice.state() == before


async def test_no_path_leads_from_ones_own_workspace_to_anothers(line: Line, people: tuple[Person, Person]) -> None:
    alice, eve = people
    before = await alice.state()
    place = line.folder / "data" / "workspaces"
    link, target = place / eve.thread / "link", f"../{alice.thread}"
    link.symlink_to(target)  # as a command of hers could make it
    (place / eve.thread / "full").symlink_to(place / alice.thread)
    url = f"/api/agent/{eve.thread}/files"
    ways = [f"{up}{alice.thread}/secret.txt" for up in ("..%2F", "%2E%2E/", "..%2F..%2Fworkspaces%2F")]
    for way in (*ways, "link/secret.txt", "full/secret.txt", quote(f"{place / alice.thread}/secret.txt", safe="")):
        for method, content in (("GET", None), ("PUT", b"stolen"), ("DELETE", None)):
            answer = await eve.http.request(method, f"{url}/{way}", content=content)
            assert answer.status_code in {400, 404} and SECRET not in answer.text, f"{method} {way}: {answer.text}"
    for way in ("link", "full"):
        answer = await eve.http.get(f"/api/agent/{eve.thread}/archive", params={"path": way})
        assert answer.status_code in {400, 404, 409} and SECRET.encode() not in answer.content, answer.text
    whole = await eve.http.get(f"/api/agent/{eve.thread}/archive")
    assert whole.status_code == 200 and SECRET.encode() not in whole.content
    assert await alice.state() == before
