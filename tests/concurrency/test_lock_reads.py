"""What a decision sees is what the one before it has left: everything is read after the lock was granted."""

import pytest

from payonce.payments.locks import under_lock
from payonce.payments.models import Discrepancy, Refund, Stream
from tests.concurrency.interleave import ORDER_ROW, Threads, held_row, wait_for_lock_waiters
from tests.concurrency.test_settle_races import two_pending
from tests.factories import apply, view_of

pytestmark = pytest.mark.concurrency


def test_what_was_written_during_the_wait_is_seen_after_it(patient):
    """S3, M4, M2: the streams, refunds and cases of the snapshot before the wait would be those of another moment."""
    keeper, surplus = two_pending(patient)
    apply(keeper, view_of(keeper))
    apply(surplus, view_of(surplus))

    def look(work):
        streams = [(stream.number, stream.last_answer) for stream in work.streams]
        return work.order.close_reason, streams, [row.note for row in work.refunds], [row.note for row in work.cases]

    with held_row(ORDER_ROW, keeper.order.number) as session:
        waiting = Threads([lambda: under_lock("system:test", look, order=keeper.order.number)])
        wait_for_lock_waiters(1, waiting)
        session.execute("UPDATE payonce_order SET close_reason = 'seen'")
        for table in ("payonce_refund", "payonce_discrepancy"):
            session.execute(f"UPDATE {table} SET note = 'seen'")
        session.execute("UPDATE payonce_stream SET last_answer = 'seen'")
        session.commit()
    assert (Stream.objects.count(), Refund.objects.count(), Discrepancy.objects.count()) == (2, 1, 1)
    numbers = sorted([keeper.number, surplus.number])
    assert waiting.results() == [("seen", [(number, "seen") for number in numbers], ["seen"], ["seen"])]
