"""Links to servers in the sandbox: only where something listens, and only where links are to be had."""

import pytest

from tests.tools.harness import Bench
from workflow.core.events import PreviewExposed
from workflow.core.ids import RunId, TenantId, thread_of
from workflow.core.records import PreviewLink
from workflow.tools.expose import UrlExpose
from workflow.tools.registry import Registry

SERVER = "python3 -m http.server 8123 --bind"


class Previews:
    """Hands out links and remembers for what."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str, float]] = []

    async def expose(self, run_id: RunId, *, port: int, path: str, ttl_s: float) -> PreviewLink:
        self.asked.append((port, path, ttl_s))
        return PreviewLink(
            id="p1",
            thread_id=thread_of(run_id),
            run_id=run_id,
            tenant=TenantId("acme"),
            port=port,
            url=f"https://preview.example/{port}{path}",
            created_at=1_600_000_000_000,
            expires_at=1_700_000_000_000,
        )


@pytest.fixture
def networked(shell: Bench) -> Bench:
    if shell.sandbox.info.tier == "T2":
        pytest.skip("commands in T2 have no sockets")
    return shell


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])  # `localhost` is either, as a program likes
async def test_a_server_that_listens_gets_a_link(networked: Bench, address: str) -> None:
    previews = Previews()
    networked.services["previews"] = previews
    await networked("bash", command=f"{SERVER} {address}", background=True)

    result = await networked("url_expose", port=8123, path="/docs", ttl_s=600)

    assert previews.asked == [(8123, "/docs", 600.0)]
    assert result.text.startswith("https://preview.example/8123/docs\nThe link works for 10 minutes")
    (event,) = result.events
    assert isinstance(event, PreviewExposed)
    assert event.preview_id == "p1"
    assert networked.state.previews[8123] == event


async def test_a_port_where_nothing_listens_is_refused_with_a_way_out(bench: Bench) -> None:
    bench.services["previews"] = previews = Previews()
    bench.registry = Registry([UrlExpose(wait_s=0.4)])

    error = await bench.fails("url_expose", port=8124)

    assert error.kind == "not_listening"
    assert "background=true" in error.message
    assert previews.asked == []


async def test_without_previews_the_model_is_told(bench: Bench) -> None:
    error = await bench.fails("url_expose", port=8123)

    assert error.kind == "previews_off"


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"port": 80}, "invalid_arguments"),
        ({"port": 70_000}, "invalid_arguments"),
        ({"port": 8123, "path": "no-slash"}, "bad_path"),
        ({"port": 8123, "path": "/a b"}, "bad_path"),
        ({"port": 8123, "path": "/a\nb"}, "bad_path"),
        ({"port": 8123, "ttl_s": 5}, "invalid_arguments"),
    ],
    ids=str,
)
async def test_odd_links_are_refused(bench: Bench, arguments: dict[str, object], kind: str) -> None:
    bench.services["previews"] = Previews()

    assert (await bench.fails("url_expose", **arguments)).kind == kind
