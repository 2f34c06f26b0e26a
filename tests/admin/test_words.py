"""Whatever a step can answer and an event can say, the console has words for it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.utils.translation import override

from payonce.channels.messages import Known, RefundView, Unknown
from payonce.channels.messages import RefundState as Answer
from payonce.payments.admin import present, timeline, words
from payonce.payments.admin.actions import Operator
from payonce.payments.admin.cases import MEANINGS, act_decide
from payonce.payments.admin.orders import act_close as act_close_order
from payonce.payments.admin.refunds import MOVE_TEXTS
from payonce.payments.admin.streams import act_ask, act_close, act_refund
from payonce.payments.close import Closed
from payonce.payments.expire import Expired
from payonce.payments.models import Refund
from payonce.payments.refund import REASONS, RefundCode, RefundRequested, request_refund, run_refund
from payonce.payments.settle import Settled
from payonce.payments.statuses import Decision, RefundState, StreamState
from payonce.payments.surplus import Decided
from payonce.payments.transitions.refunds import RefundMove
from tests.admin.conftest import confirm, duplicate, form_of, texts
from tests.factories import paid_stream
from tests.scripted import ScriptedChannel

CHECKOUT = Path(__file__).resolve().parents[2]
SOMEONE = Operator("someone")


def test_every_event_has_a_name() -> None:
    found = set[str]()
    for folder in ("orders", "payments"):
        for path in (CHECKOUT / folder).rglob("*.py"):
            if path.name in {"transitions.py", "message_rows.py"} or "/transitions/" in str(path):
                found |= set(re.findall(r'"((?:order|stream|refund|case|message)\.[a-z_]+)"', path.read_text()))
    assert len(found) > 30
    assert not found - set(timeline.EVENT_NAMES)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("reason", "duplicate", "重复付款"), ("reason", "buyer chose another way", "买家改用其他方式"), ("surplus", "late", "迟到付款"),
     ("role", "keeper", "入账流水"), ("confirmed_by", "poll", "定时查询"), ("decision", "automatic", "已自动修复"),
     ("case", "duplicate", "重复付款"), ("reason", "the shop's own words", "the shop's own words"), ("method", "qr", "qr")],
)  # fmt: skip
def test_what_a_step_wrote_down_is_said_in_words(name: str, value: str, said: str) -> None:
    with override("zh-hans"):
        assert timeline.facts_of(json.dumps({"facts": {name: value}}), "CNY")[0][1] == said


def test_every_reason_of_a_refund_has_words() -> None:
    assert set(dict(words.REASON_NAMES)) == set(REASONS) <= set(words.REASONS)


def test_a_created_stream_is_not_called_a_time_of_creation() -> None:
    with override("zh-hans"):
        assert str(StreamState.CREATED.label) == "已创建"


@pytest.mark.parametrize("kind", present.TONES_OF)
def test_every_state_has_a_shape(kind: str) -> None:
    from django.apps import apps

    model = apps.get_model("payonce_orders" if kind == "order" else "payonce_payments", kind)
    assert set(present.TONES_OF[kind]) == {value for value, _ in model._meta.get_field("state").choices}


def test_every_move_of_a_refund_has_words() -> None:
    assert set(MOVE_TEXTS) == set(RefundMove) - {RefundMove.MOVED}


@pytest.mark.parametrize("answer", Settled)
def test_every_answer_to_asking_has_words(monkeypatch: pytest.MonkeyPatch, answer: Settled) -> None:
    stream = paid_stream()
    monkeypatch.setattr("payonce.payments.admin.streams.poll_stream", lambda number, by: answer)
    assert act_ask(stream, SOMEONE, {}).text


@pytest.mark.parametrize("answer", Closed)
def test_every_answer_to_closing_has_words(monkeypatch: pytest.MonkeyPatch, answer: Closed) -> None:
    stream = paid_stream()
    monkeypatch.setattr("payonce.payments.admin.streams.close_stream", lambda *args, **kwargs: answer)
    assert act_close(stream, SOMEONE, {}).text


@pytest.mark.parametrize("answer", Expired)
def test_every_answer_to_closing_an_order_has_words(monkeypatch: pytest.MonkeyPatch, answer: Expired) -> None:
    order = paid_stream().order
    monkeypatch.setattr("payonce.payments.admin.orders.close_order", lambda *args, **kwargs: answer)
    assert act_close_order(order, SOMEONE, {}).text


@pytest.mark.parametrize("code", RefundCode)
def test_every_answer_to_a_refund_has_words(monkeypatch: pytest.MonkeyPatch, code: RefundCode) -> None:
    stream = paid_stream()
    monkeypatch.setattr(
        "payonce.payments.refund.request_refund", lambda *args, **kwargs: RefundRequested(code, "r", "", 1)
    )
    result = act_refund(stream, SOMEONE, {"amount": 1, "reason": REASONS[0], "note": ""})
    assert result.text or result.is_stale


@pytest.mark.parametrize("answer", Decided)
def test_every_answer_to_a_decision_has_words(monkeypatch: pytest.MonkeyPatch, answer: Decided) -> None:
    _, _, case = duplicate()
    monkeypatch.setattr("payonce.payments.admin.cases.decide_case", lambda *args: answer)
    for decision in MEANINGS:
        assert act_decide(case, SOMEONE, {"decision": decision.value, "note": ""}).text
    assert set(MEANINGS) == set(Decision) - {Decision.NONE, Decision.AUTOMATIC}


# What followed from the refund rules.


def unanswered_refund() -> Refund:
    stream = paid_stream()
    request_refund(stream.number, 400, reason="duplicate", by="operator:fiona")
    refund = Refund.objects.get()
    ScriptedChannel.answers[stream.account, "refund"].append(Unknown("time-out"))
    run_refund(refund.number)
    refund.refresh_from_db()
    assert refund.state == RefundState.UNKNOWN
    return refund


def test_an_unanswered_refund_is_not_written_off(operator: Any) -> None:
    refund = unanswered_refund()
    confirm(operator("Finance"), refund, "write-off")
    refund.refresh_from_db()
    assert not refund.is_released


def test_a_refused_refund_with_an_unanswered_call_is_not_written_off(operator: Any) -> None:
    refund = unanswered_refund()
    Refund.objects.filter(pk=refund.pk).update(next_try_at=refund.created_at)
    ScriptedChannel.answers[refund.stream.account, "query_refund"].append(
        Known(RefundView(refund.number, Answer.NOT_FOUND))
    )
    ScriptedChannel.answers[refund.stream.account, "refund"].append(
        Known(RefundView(refund.number, Answer.FAILED, 400, "CNY", code="no_balance"))
    )
    run_refund(refund.number)
    refund.refresh_from_db()
    told = texts(confirm(operator("Finance"), refund, "write-off"))
    refund.refresh_from_db()
    assert refund.is_released is (refund.open_call_count == 0), told


def test_a_decision_above_the_limit_waits_for_a_second_person(operator: Any, settings: Any) -> None:
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"AUTO": False, "APPROVAL_MINOR": 1}}
    _, surplus, case = duplicate()
    automatic = Refund.objects.get(stream=surplus)
    run_refund(automatic.number)
    client = operator("Finance", "fiona")
    operator_of_both = operator("Admin", "adam")
    confirm(operator_of_both, automatic, "decline", reason="look again")
    case.refresh_from_db()
    assert "waits for a second person" in texts(confirm(client, case, "decide", decision="refund"))
    refund = Refund.objects.get(state=RefundState.AWAITING_APPROVAL)
    assert refund.requested_by == "fiona"
    assert "seen" in form_of(operator_of_both, refund, "approve")
