"""The requester and the approver of a refund are compared as persons, however a caller writes the name (S15)."""

from typing import Any

import pytest

from payonce.payments.models import Refund
from payonce.payments.refund import approve_refund, request_refund
from payonce.payments.transitions.refunds import RefundMove
from tests.factories import paid_stream
from tests.scripted import ScriptedChannel


@pytest.mark.parametrize(("asks", "approves"), [("alice", "operator:alice"), ("operator:alice", "alice")])
def test_the_prefix_of_a_name_makes_no_second_person(
    scripted: type[ScriptedChannel], settings: Any, asks: str, approves: str
) -> None:
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"APPROVAL_MINOR": 1}}
    number = request_refund(paid_stream().number, 100, reason="duplicate", by=asks).number
    assert approve_refund(number, approves) is RefundMove.SAME_PERSON
    assert Refund.objects.get(number=number).requested_by == "alice"
    assert approve_refund(number, "operator:bob") is RefundMove.MOVED


def test_a_very_long_user_name_can_ask_for_a_refund(scripted: type[ScriptedChannel]) -> None:
    number = request_refund(paid_stream().number, 100, reason="duplicate", by="operator:" + "x" * 150).number
    assert Refund.objects.get(number=number).requested_by == "x" * 150
