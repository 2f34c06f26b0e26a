"""Two broken builds for the crash enumeration: workers that patch payonce before they serve."""

from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

from torture import crash_worker
from torture.crash_site import Site

MARK = "UPDATE payonce_shop_message SET state = 'DELIVERED', delivered_at = payonce_now() WHERE id = ANY(%s)"


def serve_marking_messages_early(site: Site, pipe: Connection) -> None:
    """A message to the shop counts as told when it is claimed, before the shop hears it."""
    with mock.patch.object(crash_worker, "warm_up", _mark_early):
        crash_worker.serve(site, pipe)


def serve_without_polling(site: Site, pipe: Connection) -> None:
    """Nobody asks the channel by the clock."""
    with mock.patch.object(crash_worker, "warm_up", _stop_polling):
        crash_worker.serve(site, pipe)


def _mark_early(world: Any) -> None:
    from payonce.payments import flight, message_rows

    claim_due = message_rows.claim_due

    def claim_and_mark(limit: int) -> Any:
        rows = claim_due(limit)
        if rows:
            flight.fly([flight.Statement(MARK, [[row.pk for row in rows]])], "default")
        return rows

    mock.patch.object(message_rows, "claim_due", claim_and_mark).start()


def _stop_polling(world: Any) -> None:
    from payonce.payments import sweep

    mock.patch.dict(sweep.SWEEPS, {"poll": (lambda: 0, 2.0)}).start()
