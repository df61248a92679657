"""What the console's tests look at again and again."""

import json
from typing import Any, TypeAlias

from playwright.async_api import ConsoleMessage, Page, expect

Watched: TypeAlias = list[str]

EXPECTED = (
    *("net::ERR_INTERNET_DISCONNECTED", "net::ERR_NETWORK_CHANGED"),
    *("net::ERR_CONNECTION_REFUSED", "net::ERR_CONNECTION_RESET"),
)
"""What a browser says when the network is cut on purpose."""


def watched(page: Page) -> Watched:
    """Grows with every error and refused policy that the browser reports."""
    complaints: Watched = []

    def on_message(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in EXPECTED):
            complaints.append(f"{message.type}: {message.text}")

    page.on("console", on_message)
    page.on("pageerror", lambda error: complaints.append(f"uncaught: {error}"))
    return complaints


async def open_thread(page: Page, thread_id: str, event_id: str = "") -> None:
    """Shows a thread, or one of its events."""
    await page.goto(f"/#/t/{thread_id}{f'/{event_id}' if event_id else ''}")


async def ended(page: Page, *, times: int = 1, timeout_s: float = 20) -> None:
    """Returns once that many runs of the shown thread have ended."""
    await expect(page.locator(".end")).to_have_count(times, timeout=timeout_s * 1000)


async def said(page: Page) -> list[str]:
    """The text of every finished message on the page, as a person would copy it."""
    texts: list[str] = await page.locator(".message .markdown").evaluate_all("all => all.map(one => one.innerText)")
    return [text.strip() for text in texts]


def sse(events: list[dict[str, Any]]) -> str:
    """A stream that holds `events`."""
    return "".join(f"event: task_agent_execute\nid: {e['id']}\ndata: {json.dumps(e)}\n\n" for e in events)
