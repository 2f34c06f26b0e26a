"""Boundaries where a process may die, wrapped from outside: the product knows nothing of them.

A boundary is crossed by each flight or statement to the database, commit, Redis command, task handed to the broker, call of a
channel and call of the shop's hook. At crossing number `point`, `when` before or after it, this process kills itself.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal
from unittest import mock

from torture.crash_world import is_unseen

When = Literal["before", "after"]


class Crossings:
    """Counts crossings by name; dies at one of them, where asked to. Where it is given a `look`, keeps the world at each of them."""

    def __init__(self, point: int | None = None, when: When = "before", look: Callable[[], str] | None = None) -> None:
        self.point = point
        self.when = when
        self.names: list[str] = []
        self.worlds: list[list[str]] = []  # before and after each crossing
        self.lock = threading.Lock()
        self._look = look

    def enter(self, name: str) -> int:
        """A boundary is about to be crossed. Returns its number."""
        with self.lock:
            number = len(self.names)
            self.names.append(name)
            if self._look is not None:
                self.worlds.append([self._look(), ""])
        if number == self.point and self.when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    def leave(self, number: int) -> None:
        """It was crossed, whatever came of it."""
        if self._look is not None:
            with self.lock:
                self.worlds[number][1] = self._look()
        if number == self.point and self.when == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        """The function as a boundary; `name` names it by its arguments."""

        def crossing(*args: Any, **kwargs: Any) -> Any:
            if is_unseen():
                return function(*args, **kwargs)
            number = self.enter(name(*args))
            try:
                return function(*args, **kwargs)
            finally:
                self.leave(number)

        return crossing


class Broker:
    """Stands in for Celery's application: takes every task and runs none, so that the sweeps do all the work."""

    def __init__(self) -> None:
        self.conf = SimpleNamespace(broker_url="stub://")
        self.sent: list[str] = []

    def send_task(self, name: str, **_options: Any) -> None:
        """Take a task."""
        self.sent.append(name)


def wrap(crossings: Crossings) -> None:
    """Put a crossing around every boundary of this process."""
    from django.db import connections
    from django.db.backends.base.base import BaseDatabaseWrapper

    from config.shop import DemoShop
    from payonce.channels import http
    from payonce.channels.http import AsyncDriver
    from payonce.payments import cache, enqueue, flight

    around, broker, run = crossings.around, Broker(), AsyncDriver.run

    async def crossing(driver: Any, conversation: Any) -> Any:
        number = crossings.enter(f"channel {conversation.__name__}")
        try:
            return await run(driver, conversation)
        finally:
            crossings.leave(number)

    def replace(owner: Any, name: str, naming: Callable[..., str]) -> None:
        mock.patch.object(owner, name, around(getattr(owner, name), naming)).start()

    replace(
        flight, "_fly", lambda statements, *_: "flight " + "+".join(_verb(statement.sql) for statement in statements)
    )
    replace(BaseDatabaseWrapper, "_commit", lambda *_: "commit")
    replace(cache, "_try", lambda *_: "redis")
    replace(broker, "send_task", lambda name: f"broker {name}")
    replace(http, "run", lambda conversation, *_: f"channel {conversation.__name__}")
    replace(DemoShop, "order_event", lambda *_: "hook")
    mock.patch.object(AsyncDriver, "run", crossing).start()
    mock.patch.object(enqueue, "current_app", broker).start()
    connections["default"].execute_wrappers.append(
        lambda execute, sql, *rest: around(execute, lambda sql, *_: "sql " + _verb(str(sql)))(sql, *rest)
    )


def _verb(sql: str) -> str:
    words = sql.split(None, 1)
    return words[0] if words else ""
