"""The demo shop's notebook: a file with one line for each thing that it was told. Needs no Django, so the demo reads it."""

import json
import os
from pathlib import Path
from typing import Any

INBOX_VARIABLE = "PAYONCE_SHOP_INBOX"


def note(event: dict[str, Any]) -> None:
    """Write an event down where PAYONCE_SHOP_INBOX says; without it, take note of nothing."""
    path = os.environ.get(INBOX_VARIABLE)
    if not path:
        return
    line = json.dumps(event, sort_keys=True) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())  # one write: lines of two workers never mix
    finally:
        os.close(descriptor)


def read_inbox(path: Path) -> dict[str, list[dict[str, Any]]]:
    """What the shop was told, per reference, in the order in which it first heard it; repeats are dropped by their id."""
    heard: dict[str, dict[str, dict[str, Any]]] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            event = json.loads(line)
            heard.setdefault(event["reference"], {}).setdefault(event["id"], event)
    return {reference: list(events.values()) for reference, events in heard.items()}
