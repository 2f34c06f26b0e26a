"""The shop's endpoint: writes down what is truly signed, and is down in each of its ways."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from payonce.channels.signing import new_webhook_secret, sign_webhook
from torture.inbox import Inbox

BODY = b'{"id": "tt1-2", "order": "tt1", "kind": "order.paid", "sequence": 2}'


@pytest.fixture
async def inbox(tmp_path: Path) -> AsyncIterator[Inbox]:
    made = Inbox(tmp_path / "inbox.jsonl")
    made.secret = new_webhook_secret()
    await made.start()
    yield made
    await made.stop()


async def tell(inbox: Inbox, secret: str = "", body: bytes = BODY) -> int:
    """What payonce's own signature is answered with; 0 when nobody listens."""
    headers = sign_webhook(secret or inbox.secret, "tt1-2", time.time(), BODY)
    try:
        async with aiohttp.ClientSession() as session, session.post(inbox.url, data=body, headers=headers) as reply:
            return reply.status
    except aiohttp.ClientConnectionError:
        return 0


def heard(tmp_path: Path) -> list[dict[str, object]]:
    path = tmp_path / "inbox.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def test_a_signed_message_is_written_down(inbox: Inbox, tmp_path: Path) -> None:
    assert await tell(inbox) == 204
    assert heard(tmp_path) == [{**json.loads(BODY), "listener": "web"}]


async def test_a_message_under_another_secret_or_changed_is_not(inbox: Inbox, tmp_path: Path) -> None:
    assert await tell(inbox, secret=new_webhook_secret()) == 401
    assert await tell(inbox, body=BODY + b" ") == 401
    assert heard(tmp_path) == []


async def test_it_fails_hears_without_saying_so_and_is_away(inbox: Inbox, tmp_path: Path) -> None:
    inbox.mode = "failing"
    assert await tell(inbox) == 503
    assert heard(tmp_path) == []
    inbox.mode = "deaf"
    assert await tell(inbox) == 500
    assert len(heard(tmp_path)) == 1
    inbox.mode = "up"
    await inbox.stop()
    assert await tell(inbox) == 0
    await inbox.start()
    assert await tell(inbox) == 204
    assert len(heard(tmp_path)) == 2
