"""The same Idempotency-Key at the same moment: one call carries it out, the other is told to wait."""

import pytest

from payonce.payments.api.idempotency import Key, KeyState, take_key
from payonce.payments.api.problems import Problem
from payonce.payments.models import IdempotencyRecord
from tests.concurrency.interleave import Threads, new_session, wait_for_lock_waiters

pytestmark = pytest.mark.concurrency


def test_the_same_key_at_once_is_carried_out_by_one_call(patient):
    """S9: both calls have looked before either has written; the unique constraint decides, never a look-up."""
    with new_session(autocommit=False) as session:
        session.execute("LOCK TABLE payonce_idempotency IN SHARE MODE")  # it may be read and not written
        calls = Threads([lambda: take_key("shop:shop", "refund", "k1", "s1", {"amount_minor": 5})] * 3)
        wait_for_lock_waiters(3, calls)
        session.rollback()
    answers = calls.results()
    held = [answer for answer in answers if isinstance(answer, Key)]
    assert [key.state for key in held] == [KeyState.FRESH]
    assert sorted(answer.code for answer in answers if isinstance(answer, Problem)) == ["idempotency_key_running"] * 2
    assert IdempotencyRecord.objects.count() == 1
