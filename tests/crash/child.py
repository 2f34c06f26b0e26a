"""Runs steps in child processes that kill themselves with SIGKILL at a recovery point.

Started once per test; each request (a JSON line) forks a child, so that a hundred crashes take seconds. Nothing of this is
in the product: the child wraps the product's functions from outside and counts how often it crosses from one side of a
commit, a write, a channel call or a hook to the other.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

Steps = dict[str, Callable[..., Any]]


class Crossings:
    """Every point at which a process may die, by name; at number `kill` this process does."""

    def __init__(self, kill: int | None) -> None:
        self.kill = kill
        self.names: list[str] = []

    def at(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) - 1 == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(self, function: Callable[..., Any], name: Callable[..., str | None]) -> Callable[..., Any]:
        """The function with a crossing before and after it, where `name` gives one for the arguments."""

        def crossing(*args: Any, **kwargs: Any) -> Any:
            what = name(*args)
            if what is None:
                return function(*args, **kwargs)
            self.at(f"before {what}")
            answer = function(*args, **kwargs)
            self.at(f"after {what}")
            return answer

        return crossing


def wrap_product(crossings: Crossings) -> None:
    """Put crossings around commits, writes outside transactions, channel calls and the shop's hook."""
    from django.db import connections
    from django.db.backends.base.base import BaseDatabaseWrapper

    from payonce.channels import http
    from payonce.channels.http import AsyncDriver
    from payonce.payments import flight
    from tests.crash.shop import FileShop

    def write(statements: Any, using: str) -> str | None:
        writes = any(statement.sql.lstrip().startswith(("UPDATE", "INSERT", "WITH")) for statement in statements)
        return "write" if writes and not connections[using].in_atomic_block else None

    BaseDatabaseWrapper._commit = crossings.wrapped(BaseDatabaseWrapper._commit, lambda *_: "commit")  # type: ignore[method-assign]
    flight.fly = crossings.wrapped(flight.fly, write)
    http.run = crossings.wrapped(http.run, lambda conversation, *_: conversation.__name__)
    FileShop.order_event = crossings.wrapped(FileShop.order_event, lambda *_: "hook")  # type: ignore[method-assign]
    run = AsyncDriver.run

    async def crossing(driver: Any, conversation: Any) -> Any:
        name = conversation.__name__
        crossings.at(f"before {name}")
        answer = await run(driver, conversation)
        crossings.at(f"after {name}")
        return answer

    AsyncDriver.run = crossing  # type: ignore[method-assign]


def steps() -> Steps:
    """What a request may name; every argument is text."""
    from payonce.channels.messages import NotificationRequest
    from payonce.payments import capture, expire, notify, pay, refund, sweep

    def received(account: str, body: str, headers: str) -> Any:
        return notify.receive(account, NotificationRequest(bytes.fromhex(body), json.loads(headers))).outcome

    found: Steps = {name: step for name, (step, _seconds) in sweep.SWEEPS.items()}
    return {
        **found,
        "pay": lambda order, channel: pay.pay_order(order, channel, "qr").code,
        "receive": received,
        "capture": capture.capture_stream,
        "run_refund": refund.run_refund,
        "request_refund": lambda stream: refund.request_refund(stream, 1000, reason="duplicate", by="ann").code,
        "close_order": lambda order: expire.close_order(order, by="shop:shop"),
    }


def run_child(request: dict[str, Any], answer_to: int) -> None:
    """In the forked child: run the step, and report the crossings if still alive."""
    from django.test import override_settings

    override_settings(PAYONCE=request["payonce"]).enable()
    crossings = Crossings(request["kill"])
    wrap_product(crossings)
    answer = steps()[request["step"]](*request["args"])
    crossings.at("at the end")
    os.write(answer_to, json.dumps({"answer": str(answer), "points": crossings.names}).encode())


def serve() -> None:
    """Fork for each line of standard input; write a line when the child has ended."""
    for line in sys.stdin:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            try:
                run_child(json.loads(line), write_end)
            except BaseException:
                os.write(write_end, json.dumps({"error": traceback.format_exc()[-3000:]}).encode())
            finally:
                os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            text = pipe.read()
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(json.dumps({"killed": killed, **json.loads(text or "{}")}), flush=True)


if __name__ == "__main__":
    import django

    django.setup()
    import payonce.payments.sweep  # everything is imported before the first fork
    from payonce.channels.sandbox import adapter

    assert payonce.payments.sweep
    assert adapter
    print("READY", flush=True)
    serve()
