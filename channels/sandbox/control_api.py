"""`/_ctl/…`: how tests, the demo and torture act as buyers, break things, and read the truth.

Every call needs `authorization: Bearer <control token>`, except `GET /_ctl/health`. Bodies and answers are JSON
objects. `account` may be left out where only one account knows the number. Times are ISO 8601 or seconds.

| call | fields | answers | |---|---|---| | GET health | | `ok`, `pid`, `time` | | POST open, begin, decline, approve
| number | `result`, `state` | | POST pay, second_capture | number, amount_minor, currency, at, force | `result`,
`state`, `reference` | | POST settle_refund | number, refund_number, state (DONE, FAILED, ATTENTION, RETURNED), code |
`result`, `state` | | POST dispute, reverse | number, amount_minor | `result` | | POST outside_refund | number,
amount_minor | `result`, `refund_number` | | POST faults | account, op, number, do, nth, times, and arguments (see
`faults`) | the fault with its `id` | | GET faults | | `faults` | | POST faults/clear | id, or account, op, do |
`removed` | | POST notify/send | number, event, copies, at_once, forgery, signed_ago_seconds, altered | `results`, one
per copy | | POST notify/release | account, number, order (oldest or newest first), at_once | `results` | | POST
notify/resend | number | `count`: due at once, through the schedule | | POST notify/wait | number, delivered (a
count), seconds | `reached` | | GET notify | account, number | `notifications` | | POST gate | name, action (open,
wait), arrivals, seconds | `reached` | | GET ledger | account, number | `payments`, `captures`, `refunds`, `journal`,
`sums` | | GET journal | after (an id) | `journal`: the next movements, up to 10,000 |
| POST clock | offset_seconds or advance_seconds; account, skew_seconds and calls_only | `time` | | GET calls | account,
op, number | `count`, `calls` |

`result` is OK, or why not: NOT_FOUND, ALREADY_PAID, ALREADY_CLOSED, EXPIRED, …
"""

import hmac
import os
import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from payonce.channels.sandbox import ledger, outbox, refunds, wire
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.asgi import Request, Response
from payonce.channels.sandbox.bank import Bank
from payonce.channels.sandbox.faults import FORGERIES, FaultError
from payonce.channels.sandbox.ledger import Tender
from payonce.channels.sandbox.outbox import Notification
from payonce.channels.sandbox.records import Result, find_accounts, find_payment
from payonce.channels.sandbox.sender import Style
from payonce.channels.sandbox.truth import dump, journal_page
from payonce.channels.sandbox.wire import MalformedError

Fields = dict[str, Any]
_Handler = Callable[[Fields], Awaitable[Fields]]
WAIT_SECONDS_MAX = 60.0
JOURNAL_ROWS_PER_PAGE = 10_000


class RefusedError(Exception):
    """The call is wrong; the text says how."""


class ControlApi:
    """Serves `/_ctl/` of one bank."""

    def __init__(self, bank: Bank, token: str) -> None:
        if len(token) < 16:
            raise ValueError("the control token needs at least 16 characters")
        self._bank = bank
        self._token = token
        self._handlers: dict[tuple[str, str], _Handler] = {
            ("POST", "open"): self._buyer(ledger.open_page),
            ("POST", "begin"): self._buyer(ledger.begin),
            ("POST", "decline"): self._buyer(ledger.decline),
            ("POST", "approve"): self._pay,
            ("POST", "pay"): self._pay,
            ("POST", "second_capture"): self._second_capture,
            ("POST", "settle_refund"): self._settle_refund,
            ("POST", "dispute"): self._take_back("dispute"),
            ("POST", "reverse"): self._take_back("reversal"),
            ("POST", "outside_refund"): self._outside_refund,
            ("POST", "faults"): self._add_fault,
            ("GET", "faults"): self._list_faults,
            ("POST", "faults/clear"): self._clear_faults,
            ("POST", "notify/send"): self._notify_send,
            ("POST", "notify/release"): self._notify_release,
            ("POST", "notify/resend"): self._notify_resend,
            ("POST", "notify/wait"): self._notify_wait,
            ("GET", "notify"): self._notify_list,
            ("POST", "gate"): self._gate,
            ("GET", "ledger"): self._ledger,
            ("GET", "journal"): self._journal,
            ("POST", "clock"): self._clock,
            ("GET", "calls"): self._calls,
        }

    async def serve(self, request: Request) -> Response:
        """Check the token and do what is asked."""
        name = request.path.removeprefix("/_ctl/")
        if (request.method, name) == ("GET", "health"):
            return _json(200, {"ok": True, "pid": os.getpid(), "time": wire.format_seconds(self._bank.now())})
        expected = f"Bearer {self._token}".encode()
        if not hmac.compare_digest(expected, request.headers.get("authorization", "").encode()):
            return _json(401, {"error": "wrong or missing control token"})
        handler = self._handlers.get((request.method, name))
        if handler is None:
            return _json(404, {"error": f"no control call {request.method} {name}"})
        try:
            fields = _query_fields(request) if request.method == "GET" else wire.read_object(request.body or b"{}")
            return _json(200, await handler(fields))
        except MalformedError as error:
            return _json(400, {"error": f"malformed: {error}"})
        except (RefusedError, FaultError) as error:
            return _json(400, {"error": str(error)})

    async def _account(self, fields: Fields) -> tuple[SandboxAccount, str]:
        """The account and the number that a call is about."""
        number = wire.number(fields, "number")
        name = wire.text(fields, "account", default="")
        if not name:
            known = await self._bank.read(lambda database: find_accounts(database, number))
            if len(known) > 1:
                raise RefusedError(f"several accounts know this number ({', '.join(known)}): say which")
            name = known[0] if known else next(iter(self._bank.accounts))
        account = self._bank.accounts.get(name)
        if account is None:
            raise RefusedError(f"no account {name!r}; there are: {', '.join(self._bank.accounts)}")
        return account, number

    def _buyer(self, act: Callable[[sqlite3.Connection, SandboxAccount, str, float], Result]) -> _Handler:
        async def handler(fields: Fields) -> Fields:
            account, number = await self._account(fields)
            return _told(await self._bank.change(lambda database, at: act(database, account, number, at)))

        return handler

    async def _pay(self, fields: Fields) -> Fields:
        account, number = await self._account(fields)
        return _told(await self._bank.pay(account, number, self._tender(fields)))

    async def _second_capture(self, fields: Fields) -> Fields:
        account, number = await self._account(fields)
        tender = self._tender(fields)
        return _told(
            await self._bank.change(lambda database, at: ledger.capture_again(database, account, number, tender, at))
        )

    def _tender(self, fields: Fields) -> Tender:
        paid_at = wire.optional_moment(fields, "at")
        return Tender(
            amount_minor=None if fields.get("amount_minor") is None else wire.amount(fields, "amount_minor", least=1),
            currency=wire.currency(fields, optional=True) or None,
            paid_at=None if paid_at is None else paid_at.timestamp(),
            force=_flag(fields, "force"),
        )

    async def _settle_refund(self, fields: Fields) -> Fields:
        account, number = await self._account(fields)
        refund_number = wire.number(fields, "refund_number")
        state, code = wire.text(fields, "state"), wire.text(fields, "code", default="", characters_max=64)
        return _told(
            await self._bank.change(
                lambda database, at: refunds.settle_refund(database, account, number, refund_number, state, code, at)
            )
        )

    def _take_back(self, kind: str) -> _Handler:
        async def handler(fields: Fields) -> Fields:
            account, number = await self._account(fields)
            amount = None if fields.get("amount_minor") is None else wire.amount(fields, "amount_minor", least=1)
            return _told(
                await self._bank.change(
                    lambda database, at: ledger.take_back(database, account, number, kind, amount, at)
                )
            )

        return handler

    async def _outside_refund(self, fields: Fields) -> Fields:
        account, number = await self._account(fields)
        amount = wire.amount(fields, "amount_minor", least=1)
        name = "outside_" + secrets.token_hex(6)

        def change(database: sqlite3.Connection, at: float) -> Result:
            known = find_payment(database, account.name, number)
            currency = known.currency if known else ""
            order = refunds.RefundOrder(name, "", amount, currency, "", outside=True)
            return refunds.refund(database, account, number, order, refunds.Course(), at)

        return {**_told(await self._bank.change(change)), "refund_number": name}

    async def _add_fault(self, fields: Fields) -> Fields:
        known = {"account", "op", "number", "do", "nth", "times"}
        account = wire.text(fields, "account", default="*")
        if account != "*" and account not in self._bank.accounts:
            raise RefusedError(f"no account {account!r}; there are: {', '.join(self._bank.accounts)}")
        times = fields.get("times", 1)
        fault = self._bank.plan.add(
            account,
            wire.text(fields, "op", default="*"),
            wire.text(fields, "number", default="*"),
            wire.text(fields, "do"),
            wire.amount(fields, "nth", default=1),
            None if times is None else wire.amount(fields, "times", default=1),
            **{name: value for name, value in fields.items() if name not in known},
        )
        return fault.describe()

    async def _list_faults(self, _fields: Fields) -> Fields:
        return {"faults": [fault.describe() for fault in self._bank.plan.all()]}

    async def _clear_faults(self, fields: Fields) -> Fields:
        plan = self._bank.plan
        if "id" in fields:
            return {"removed": int(plan.remove(wire.amount(fields, "id")))}
        chosen = (wire.text(fields, name, default="*") for name in ("account", "op", "do"))
        return {"removed": plan.clear(*chosen)}

    async def _notify_send(self, fields: Fields) -> Fields:
        account, number = await self._account(fields)
        event = wire.text(fields, "event", default="")
        messages = await self._bank.read(lambda database: outbox.find(database, account.name, number))
        chosen = [message for message in messages if event in {"", message.event}]
        if not chosen:
            raise RefusedError(f"no notification {event or 'at all'} is known for {number}")
        style = Style(
            forgery=wire.text(fields, "forgery", default=""),
            altered=fields.get("altered") or {},
            signed_ago_seconds=float(fields.get("signed_ago_seconds") or 0.0),
        )
        if style.forgery and style.forgery not in FORGERIES:
            raise RefusedError(f"forgery must be one of {', '.join(sorted(FORGERIES))}")
        copies = wire.amount(fields, "copies", least=1, default=1)
        at_once = _flag(fields, "at_once")
        return {"results": await self._bank.sender.deliver_now(chosen[-1:], style, copies, at_once=at_once)}

    async def _notify_release(self, fields: Fields) -> Fields:
        name, number = wire.text(fields, "account", default=""), wire.number(fields, "number", optional=True)
        held = await self._bank.read(lambda database: outbox.find(database, name, number, ("HELD",)))
        if wire.text(fields, "order", default="oldest") == "newest":
            held.reverse()
        at_once = _flag(fields, "at_once")
        results = await self._bank.sender.deliver_now(held, Style(), at_once=at_once)
        # Those that were not accepted go on by the retry table.
        await self._reschedule(held)
        return {"results": results}

    async def _reschedule(self, messages: list[Notification]) -> None:
        at, sender = self._bank.now(), self._bank.sender
        due = [(message.id, at + sender.gaps(message.account)[0]) for message in messages]
        await self._bank.read(lambda database: outbox.schedule_undelivered(database, due))
        self._bank.sender.wake()

    async def _notify_resend(self, fields: Fields) -> Fields:
        account, number = await self._account(fields)
        at = self._bank.now()

        def change(database: sqlite3.Connection) -> int:
            messages = outbox.find(database, account.name, number)
            outbox.make_due(database, [message.id for message in messages], at)
            return len(messages)

        count = await self._bank.read(change)
        self._bank.sender.wake()
        return {"count": count}

    async def _notify_wait(self, fields: Fields) -> Fields:
        account, number = await self._account(fields)
        state = wire.text(fields, "state", default="DELIVERED")
        count = wire.amount(fields, "count", default=1)
        attempts = wire.amount(fields, "attempts", default=0)

        def done(messages: list[Notification]) -> bool:
            return sum(m.state == state and m.attempts >= attempts for m in messages) >= count

        seconds = _seconds(fields)
        return {"reached": await self._bank.sender.wait_for(account.name, number, done, seconds)}

    async def _notify_list(self, fields: Fields) -> Fields:
        name, number = wire.text(fields, "account", default=""), wire.number(fields, "number", optional=True)
        messages = await self._bank.read(lambda database: outbox.find(database, name, number))
        return {"notifications": [outbox.describe(message) for message in messages]}

    async def _gate(self, fields: Fields) -> Fields:
        name, action = wire.text(fields, "name"), wire.text(fields, "action")
        gates = self._bank.plan.gates
        if action == "open":
            gates.open(name)
            return {"reached": True}
        if action != "wait":
            raise RefusedError("action must be open or wait")
        arrivals = wire.amount(fields, "arrivals", least=1, default=1)
        return {"reached": await gates.wait_for(name, arrivals, _seconds(fields))}

    async def _ledger(self, fields: Fields) -> Fields:
        name, number = wire.text(fields, "account", default=""), wire.number(fields, "number", optional=True)
        return await self._bank.read(lambda database: dump(database, name, number))

    async def _journal(self, fields: Fields) -> Fields:
        text = wire.text(fields, "after", default="0", characters_max=18)
        if not (text.isascii() and text.isdigit()):
            raise MalformedError("after")
        rows = await self._bank.read(lambda database: journal_page(database, int(text), JOURNAL_ROWS_PER_PAGE))
        return {"journal": rows}

    async def _clock(self, fields: Fields) -> Fields:
        bank = self._bank
        if "offset_seconds" in fields:
            bank.offset_seconds = _number(fields, "offset_seconds")
        if "advance_seconds" in fields:
            bank.offset_seconds += _number(fields, "advance_seconds")
        if "skew_seconds" in fields:
            name = wire.text(fields, "account")
            if name not in bank.accounts:
                raise RefusedError(f"no account {name!r}; there are: {', '.join(bank.accounts)}")
            skews = bank.call_skew_seconds if _flag(fields, "calls_only") else bank.skew_seconds
            skews[name] = _number(fields, "skew_seconds")
        await bank.sender.settle_due_refunds()
        bank.sender.wake()
        return {"time": wire.format_seconds(bank.now())}

    async def _calls(self, fields: Fields) -> Fields:
        wanted = [wire.text(fields, name, default="") for name in ("account", "op", "number")]
        rows = [
            {"account": key[0], "op": key[1], "number": key[2], "count": count}
            for key, count in sorted(self._bank.plan.calls.items())
            if all(want in {"", have} for want, have in zip(wanted, key, strict=True))
        ]
        return {"count": sum(row["count"] for row in rows), "calls": rows}


def _told(result: Result) -> Fields:
    fields: Fields = {"result": str(result.code)}
    if result.message:
        fields["message"] = result.message
    if result.refund is not None:
        fields["state"] = result.refund.state
    elif result.payment is not None:
        fields["state"] = result.payment.state
    if result.capture is not None:
        fields["reference"] = result.capture.reference
    return fields


def _query_fields(request: Request) -> Fields:
    return {name: values[0] for name, values in parse_qs(request.query).items()}


def _flag(fields: Fields, name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise MalformedError(name)
    return value


def _number(fields: Fields, name: str) -> float:
    value = fields.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 10**9:
        raise MalformedError(name)
    return float(value)


def _seconds(fields: Fields) -> float:
    return min(WAIT_SECONDS_MAX, max(0.0, _number({"seconds": fields.get("seconds", 10)}, "seconds")))


def _json(status: int, fields: Fields) -> Response:
    return Response(status, wire.write_object(fields), {"content-type": "application/json"})
