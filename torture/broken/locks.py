"""Broken builds of transactions, locks, constraints and history."""

from torture.sabotage import Change, Saboteur

LOCKS = "payments/locks.py"
RACES = "tests/concurrency"

BUILDS = (
    Saboteur(
        "no-lock",
        "Orders and streams are read without locking them.",
        ("S3", "M4"),
        (
            f"{RACES}/test_pay_races.py::test_the_second_click_waits_while_the_first_holds_the_order",
            f"{RACES}/test_settle_races.py::test_money_and_closing_queue_in_either_order",
            "torture.interleave --pair settle-settle --sample 40",
        ),
        (
            Change(LOCKS, 'f"{condition} FOR UPDATE", params', 'f"{condition}", params'),
            Change(LOCKS, 'f"order_{streams} ORDER BY id FOR UPDATE"', 'f"order_{streams} ORDER BY id"'),
        ),
    ),
    Saboteur(
        "unlock-before-commit",
        "The decision is made under the lock, and written after letting go of it.",
        ("S3", "M4", "S10"),
        (
            f"{RACES}/test_pay_races.py::test_a_hundred_clicks_at_once_make_one_stream_and_one_call",
            f"{RACES}/test_pay_races.py::test_a_payment_and_a_new_click_queue_in_either_order",
            "torture.interleave --pair settle-twice --sample 40",
        ),
        (
            Change(
                LOCKS,
                "        answer = decide(work)\n        work.flush()\n",
                "        answer = decide(work)\n    with transaction.atomic(using=using, durable=True):\n        work.flush()\n",
            ),
        ),
    ),
    Saboteur(
        "locked-after-reading",
        "The streams are read in the statement that locks the order, from the snapshot before the wait.",
        ("S3", "M4"),
        (
            f"{RACES}/test_lock_reads.py::test_what_was_written_during_the_wait_is_seen_after_it",
            "torture.interleave --pair stay-switch --sample 40",
        ),
        (
            Change(
                LOCKS,
                '            flight.select(Order, f"{condition} FOR UPDATE", params),\n'
                '            flight.select(Stream, f"order_{streams} ORDER BY id FOR UPDATE", params),\n',
                '            flight.select(Stream, f"order_{streams} ORDER BY id", params),\n'
                '            flight.select(Order, f"{condition} FOR UPDATE", params),\n',
            ),
            Change(
                LOCKS,
                "    if not results[1]:\n",
                "    results[1], results[2] = results[2], results[1]\n    if not results[1]:\n",
            ),
        ),
    ),
    Saboteur(
        "no-unique-open-stream",
        "The database lets an order have two open streams.",
        ("S3",),
        ("tests/payments/test_constraints.py::test_a_second_open_stream_of_an_order",),
        (
            Change(
                "payments/migrations/0001_initial.py",
                "'CAPTURING'))), fields=('order',), name='payonce_stream_one_open'",
                "'CAPTURING'))), fields=('order', 'number'), name='payonce_stream_one_open'",
            ),
        ),
    ),
    Saboteur(
        "no-unique-keeper",
        "The database lets an order have two keepers.",
        ("M4",),
        (
            "tests/payments/test_constraints.py::test_a_second_keeper_of_an_order",
            "tests/payments/test_constraints.py::test_another_keeper_of_a_paid_order",
        ),
        (
            Change(
                "payments/migrations/0001_initial.py",
                "models.Q(('role', 'keeper')), fields=('order',), name='payonce_stream_one_keeper'",
                "models.Q(('role', 'keeper')), fields=('order', 'number'), name='payonce_stream_one_keeper'",
            ),
            Change(
                "orders/migrations/0002_guards.py",
                'CLOCK + ";" + APPEND_ONLY + KEEPER_FIXED',
                'CLOCK + ";" + APPEND_ONLY',
            ),
        ),
    ),
    Saboteur(
        "history-can-be-changed",
        "No trigger refuses updates and deletes of events.",
        ("S10",),
        ("tests/orders/test_place.py::test_events_can_be_neither_changed_nor_deleted",),
        (
            Change(
                "orders/migrations/0002_guards.py",
                'CLOCK + ";" + APPEND_ONLY + KEEPER_FIXED',
                'CLOCK + ";" + KEEPER_FIXED',
            ),
        ),
    ),
    Saboteur(
        "chain-of-one",
        "An event's hash does not cover the event before it.",
        ("S10",),
        ("tests/orders/test_events.py", "torture.crash --scenario pay --sample 2"),
        (Change("orders/events.py", "hashlib.sha256((previous + body).encode())", "hashlib.sha256(body.encode())"),),
    ),
    Saboteur(
        "event-in-a-second-transaction",
        "A state is committed first, and its event afterwards.",
        ("S10", "S11"),
        ("tests/crash/test_recovery_points.py::test_pay", "torture.crash --scenario pay"),
        (
            Change(
                LOCKS,
                "        inserts = [flight.insert(row) for row in (*self.new, *self.journal.events)]\n",
                "        events, using = [flight.insert(row) for row in self.journal.events], self.using\n"
                "        if events:\n"
                "            self.callbacks.insert(0, lambda: flight.fly(events, using))\n"
                "        inserts = [flight.insert(row) for row in self.new]\n",
            ),
        ),
    ),
    Saboteur(
        "deadlock-is-an-error",
        "A deadlock is not retried.",
        ("L6",),
        (f"{RACES}/test_lock_timeouts.py::test_a_deadlock_is_retried_and_the_decision_made_again",),
        (Change(LOCKS, 'frozenset({"40001", "40P01"})', 'frozenset({"40001"})'),),
    ),
    Saboteur(
        "waits-for-ever",
        "A lock that is not granted is waited for without an end.",
        ("L6",),
        (f"{RACES}/test_lock_timeouts.py::test_every_step_gives_up_at_a_held_order_within_the_time_out",),
        (Change(LOCKS, "timeouts = [str(conf.LOCK_TIMEOUT_MS), ", 'timeouts = ["0", '),),
    ),
)
