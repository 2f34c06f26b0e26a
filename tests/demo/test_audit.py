"""The verdict finds wrong books: each test spoils one thing in books that are right."""

import hashlib
import json
from dataclasses import replace
from typing import Any, cast

import pytest

from config.demo.audit import Books, Verdict, find_unexplained, judge
from config.demo.site import Caller, Purchase

NUMBER, KEEPER, SURPLUS = "po1", "po1s02", "po1s01"
CHEAP = Purchase(NUMBER, "ref-1", 500, "", "PAID", cast("Caller", None))


def chain(*kinds: str) -> list[dict[str, Any]]:
    """Events with a good chain."""
    previous, rows = "", []
    for sequence, kind in enumerate(kinds, 1):
        body = json.dumps({"sequence": sequence, "kind": kind})
        previous = hashlib.sha256((previous + body).encode()).hexdigest()
        rows.append({"sequence": sequence, "kind": kind, "body": body, "hash": previous})
    return rows


def good_books() -> Books:
    """An order that was paid twice and is right again."""
    events = chain("order.placed", "order.paid", "refund.succeeded")
    order = {
        "number": NUMBER, "state": "PAID", "amount_minor": 500, "refunded_minor": 0, "keeper": KEEPER,
        "version": 3, "event_hash": events[-1]["hash"],
    }  # fmt: skip
    stream = {"account": "a", "origin_number": "", "state": "SUCCEEDED"}
    side = {"captured_minor": 500, "refunded_minor": 0, "net_minor": 500}
    back = {"captured_minor": 500, "refunded_minor": 500, "net_minor": 0}
    owed = [event for event in events if event["kind"] != "order.placed"]
    return Books(
        CHEAP,
        {"a": {KEEPER: side, SURPLUS: back}},
        order,
        streams=[{**stream, "number": SURPLUS, "role": "surplus"}, {**stream, "number": KEEPER, "role": "keeper"}],
        events=events,
        messages=[{"sequence": event["sequence"], "state": "DELIVERED"} for event in owed],
        refunds=[{"number": "po1s01rs1", "state": "SUCCEEDED"}],
        heard=[{"id": f"{NUMBER}-{event['sequence']}", "kind": event["kind"]} for event in owed],
    )


def spoil(books: Books, name: str, **changes: Any) -> Books:
    """Books with the first row of a list (or the order) changed."""
    if name == "order":
        return replace(books, order={**cast("dict[str, Any]", books.order), **changes})
    rows = list(getattr(books, name))
    return replace(books, **{name: [{**rows[0], **changes}, *rows[1:]]})


def test_books_that_agree_are_paid_once() -> None:
    verdict = judge(good_books())
    assert verdict.problems == []
    assert verdict.as_json() == {
        "reference": "ref-1", "paid_once": True, "captured_minor": 1000, "refunded_minor": 500,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("order", {"state": "CLOSED", "keeper": None}, "the order is CLOSED"),
        ("order", {"amount_minor": 499}, "amount is 499"),
        ("order", {"refunded_minor": 1}, "own money was given back"),
        ("order", {"keeper": SURPLUS}, "the keepers are"),
        ("order", {"version": 4}, "head is not its newest event"),
        ("order", {"event_hash": "0"}, "head is not its newest event"),
        ("streams", {"role": "keeper"}, "the keepers are"),
        ("streams", {"state": "CLOSING"}, "is still CLOSING"),
        ("refunds", {"state": "UNKNOWN"}, "is UNKNOWN"),
        ("events", {"body": '{"sequence": 1, "kind": "changed"}'}, "does not match its hash"),
        ("events", {"sequence": 2}, "event 1 is missing"),
        ("messages", {"state": "PENDING"}, "message 2 is PENDING"),
        ("heard", {"id": "po1-9"}, "the shop heard"),
        ("heard", {"kind": "order.closed"}, "the shop heard 0 times"),
    ],
)
def test_spoiled_row_is_found(name: str, changes: dict[str, Any], says: str) -> None:
    assert any(says in problem for problem in judge(spoil(good_books(), name, **changes)).problems)


def test_money_that_stayed_twice_is_found() -> None:
    kept = {"captured_minor": 500, "refunded_minor": 0, "net_minor": 500}
    problems = judge(replace(good_books(), sums={"a": {KEEPER: kept, SURPLUS: kept}})).problems
    assert problems == ["the bank kept 1000 instead of 500", f"the bank kept 500 of {SURPLUS}, which is not the keeper"]


def test_money_given_back_twice_is_found() -> None:
    kept = {"captured_minor": 500, "refunded_minor": 0, "net_minor": 500}
    back = {"captured_minor": 500, "refunded_minor": 1000, "net_minor": -500}
    problems = judge(replace(good_books(), sums={"a": {KEEPER: kept, SURPLUS: back}})).problems
    assert "the bank kept 0 instead of 500" in problems


def test_paid_twice_in_the_history_is_found() -> None:
    events = chain("order.paid", "order.paid")
    books = spoil(replace(good_books(), events=events), "order", version=2, event_hash=events[-1]["hash"])
    assert judge(books).problems == ["the history says 2 times that the order was paid"]


def test_open_case_is_found() -> None:
    assert judge(replace(good_books(), cases=[{"summary": "look here"}])).problems == ["an open case: look here"]


def test_order_that_is_not_there_is_not_paid_once() -> None:
    verdict = judge(Books(CHEAP, {}, None))
    assert not verdict.paid_once
    assert verdict == Verdict("ref-1", "?", 0, 0, ["there is not exactly one such order"])


def test_closed_order_keeps_nothing() -> None:
    late = replace(CHEAP, ends_as="CLOSED")
    events = chain("order.placed", "order.closed")
    order = {"number": NUMBER, "state": "CLOSED", "amount_minor": 500, "refunded_minor": 0, "keeper": None,
             "version": 2, "event_hash": events[-1]["hash"]}  # fmt: skip
    back = {"captured_minor": 500, "refunded_minor": 500, "net_minor": 0}
    stream = {"account": "a", "origin_number": "", "state": "SUCCEEDED", "number": SURPLUS, "role": "surplus"}
    books = Books(late, {"a": {SURPLUS: back}}, order, streams=[stream], events=events)
    assert judge(books).problems == []
    kept = replace(books, sums={"a": {SURPLUS: {**back, "refunded_minor": 0, "net_minor": 500}}})
    assert "the bank kept 500 instead of 0" in judge(kept).problems


def test_money_that_no_order_knows_is_found() -> None:
    ledger = {"a": {"po1s01": {"captured_minor": 5}, "stray": {"captured_minor": 7}}}
    assert find_unexplained(ledger, {("a", "po1s01")}) == ["the bank took 7 under stray of a, which no order knows"]
    assert find_unexplained(ledger, {("b", "po1s01"), ("a", "stray"), ("a", "po1s01")}) == []
