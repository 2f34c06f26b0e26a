"""What the outside world uses: a history of what it asked and was answered, HTTP to payonce, and the bank's wallet."""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

CALL_SECONDS = 20.0
REACH_SECONDS = 3.0
Fields = dict[str, Any]


class History:
    """The operations of a run as JSON lines, in the format that `torture.check` reads. Written in pieces, not line by line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1 << 20)
        self._ids = itertools.count(1)

    def begin(self, op: str, process: str, **args: Any) -> int:
        """An operation is invoked; returns its id."""
        number = next(self._ids)
        self._write(number, "invoke", op, process, args=args)
        return number

    def end(self, number: int, how: str, op: str, process: str, args: Fields | None = None, **result: Any) -> None:
        """It ended: ok, fail (surely without effect), or unknown."""
        self._write(number, how, op, process, args=args or {}, result=result)

    def note(self, op: str, process: str, how: str = "ok", result: Fields | None = None, **args: Any) -> None:
        """Something that happened at one moment."""
        self._write(next(self._ids), how, op, process, args=args, result=result or {})

    def _write(self, number: int, how: str, op: str, process: str, **rest: Fields) -> None:
        line = {"id": number, "type": how, "op": op, "process": process, "at": time.time(), **rest}
        self._file.write(json.dumps(line) + "\n")

    def flush(self) -> None:
        """Everything is on disk."""
        self._file.flush()

    def close(self) -> None:
        """No more."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to. `how` is ok (2xx), fail (a definite no) or unknown; `status` 0 means that nobody answered."""

    how: str
    status: int
    body: Fields
    retry_after_seconds: float = 0.0

    @property
    def code(self) -> str:
        """A result's or a problem's code."""
        return str(self.body.get("result") or self.body.get("code") or "")


@dataclass
class Web:
    """payonce over HTTP: every call goes to one of its web processes by chance. `statuses` counts what they answered."""

    urls: list[str]
    session: aiohttp.ClientSession
    history: History
    statuses: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    async def call(
        self, method: str, path: str, token: str, body: Fields | None = None, headers: Mapping[str, str] | None = None,
        *, url: str = "", seconds: float = CALL_SECONDS,
    ) -> Answer:  # fmt: skip
        """One call. A 500 is nobody's business to expect, and is kept."""
        base = url or random.choice(self.urls)
        given = {"authorization": f"Bearer {token}", **(headers or {})}
        limit = aiohttp.ClientTimeout(total=seconds, connect=REACH_SECONDS)
        try:
            async with self.session.request(
                method, base + path, json=body, headers=given, timeout=limit, allow_redirects=False
            ) as reply:
                status, raw, after = reply.status, await reply.read(), reply.headers.get("retry-after", "0")
        except (aiohttp.ClientError, TimeoutError, OSError):
            self.statuses["none"] += 1
            return Answer("unknown", 0, {})
        self.statuses[str(status)] += 1
        found = _object(raw)
        if status >= 500 and status != 503:
            self.broken.append(f"{method} {path} answered {status}: {raw[:200].decode(errors='replace')}")
        how = "ok" if status < 300 else "unknown" if status >= 500 else "fail"
        return Answer(how, status, found, float(after) if after.isdecimal() else 0.0)


@dataclass
class Bank:
    """The wallet's side of the sandbox: buyers pay here, and faults are planned here. Errors are the bank being away."""

    url: str
    token: str
    session: aiohttp.ClientSession
    planned: Counter[str] = field(default_factory=Counter)

    async def act(self, name: str, **fields: Any) -> Fields:
        """One control call; an empty answer when the bank is away or refused the call."""
        limit = aiohttp.ClientTimeout(total=15, connect=REACH_SECONDS)
        headers = {"authorization": f"Bearer {self.token}"}
        try:
            async with self.session.post(
                f"{self.url}/_ctl/{name}", json=fields, headers=headers, timeout=limit
            ) as reply:
                return _object(await reply.read()) if reply.status == 200 else {}
        except (aiohttp.ClientError, TimeoutError, OSError):
            return {}

    async def fault(
        self, op: str, do: str, *, account: str = "*", number: str = "*", times: int = 1, **arguments: Any
    ) -> bool:
        """Plan a fault; False when the bank is away."""
        made = await self.act("faults", op=op, do=do, account=account, number=number, times=times, **arguments)
        self.planned[f"{op} {do}"] += times if made else 0
        return bool(made)


def _object(raw: bytes) -> Fields:
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


async def pause(seconds: float) -> None:
    """A person takes this long."""
    await asyncio.sleep(seconds)
