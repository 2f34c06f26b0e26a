"""Broken builds of refunds: reservations, numbers, approvals and what an answer means."""

from torture.sabotage import Change, Saboteur

REFUND = "payments/refund.py"
RUN = "payments/refund_run.py"
ANSWER = "payments/refund_answer.py"
ARROWS = "payments/transitions/refunds.py"
TEST = "tests/path/test_refund.py"
RACES = "tests/concurrency/test_refund_races.py"
MIGRATION = "payments/migrations/0001_initial.py"

BUILDS = (
    Saboteur(
        "new-refund-number-per-retry",
        "A refund of unknown outcome is repeated under a new number.",
        ("M6",),
        (f"{TEST}::test_an_unknown_outcome_is_queried_and_repeated_under_the_same_number",),
        (
            Change(
                RUN,
                "        payment=ticket.ref.payment, refund_number=number, amount_minor",
                '        payment=ticket.ref.payment, refund_number=number + ("x" if '
                'ticket.asks_refund_first else ""), amount_minor',
            ),
        ),
    ),
    Saboteur(
        "repeated-without-asking",
        "A refund of unknown outcome is repeated without asking what became of it.",
        ("M6",),
        (f"{TEST}::test_a_lost_answer_of_a_done_refund_is_found_by_the_query",),
        (Change(RUN, "        asks_refund_first=not is_first, ", "        asks_refund_first=False, "),),
    ),
    Saboteur(
        "repeated-past-its-window",
        "A refund is repeated although the channel may have forgotten its number.",
        ("M6",),
        (
            f"{TEST}::test_past_its_replay_window_an_unknown_refund_is_only_asked_about",
            "tests/found/test_second_look.py",
        ),
        (
            Change(
                RUN,
                "    may_repeat = refund.replay_safe_until is None or refund.replay_safe_until > work.at\n",
                "    may_repeat = refund.replay_safe_until is None or refund.created_at <= work.at\n",
            ),
            Change(
                RUN,
                "    if refund.replay_safe_until is not None and refund.replay_safe_until <= work.at:\n",
                "    if refund.replay_safe_until is not None and refund.replay_safe_until <= refund.created_at:\n",
            ),
        ),
    ),
    Saboteur(
        "refund-without-intent",
        "That a refund is sent is not committed before the call.",
        ("S6", "M6"),
        ("tests/crash/test_recovery_points.py::test_refund", TEST),
        (
            Change(
                RUN,
                "    if not with_refund(number, by, lambda work: _intend(work, ticket)):\n        return RefundRun.LATER\n",
                "",
            ),
        ),
    ),
    Saboteur(
        "two-workers-send-one-refund",
        "A worker carries a refund out although another one is at it.",
        ("M6", "S6"),
        (
            f"{RACES}::test_a_worker_that_comes_between_anothers_claim_and_its_call_sends_nothing",
            f"{RACES}::test_two_workers_carry_one_refund_out_with_one_call",
            "torture.interleave --pair run-run --sample 30",
        ),
        (
            Change(
                RUN,
                "    if refund.call_lease_until is not None and refund.call_lease_until > work.at:\n"
                "        return RefundRun.LATER\n",
                "",
            ),
            Change(
                RUN,
                "    if refund.next_try_at is None or refund.next_try_at > work.at:\n"
                "        return RefundRun.NOT_DUE\n",
                "    if refund.next_try_at is None:\n        return RefundRun.NOT_DUE\n",
            ),
            Change(
                RUN,
                "    if refund.call_lease != ticket.lease or refund.state not in SENDABLE:\n"
                "        return False\n"
                "    if not _is_allowed",
                "    if refund.state not in SENDABLE:\n        return False\n    if not _is_allowed",
            ),
        ),
    ),
    Saboteur(
        "refund-time-out-is-a-no",
        "A refund without an answer counts as refused.",
        ("M6", "M2"),
        (f"{TEST}::test_an_unknown_outcome_is_queried_and_repeated_under_the_same_number",),
        (
            Change(
                ANSWER,
                "    elif isinstance(outcome, Unknown) or asked_only:\n"
                "        not_answered(work, refund, short(outcome))\n",
                "    elif isinstance(outcome, Unknown):\n        arrows.reject(work, refund, short(outcome))\n"
                "    elif asked_only:\n        not_answered(work, refund, short(outcome))\n",
            ),
        ),
    ),
    Saboteur(
        "old-failure-frees-the-money",
        "An old message that a refund failed frees its money while a later call is unanswered.",
        ("M6", "M2"),
        (
            ""
            "tests/found/test_second_look.py::test_an_old_failure_told_again_does_not_free_a_retried_refund_of_unknown_outcome",
        ),
        (
            Change(
                ANSWER,
                "    if not is_asked and (refund.state == RefundState.SUCCEEDED or refund.open_call_count > 0):\n",
                "    if not is_asked and refund.state == RefundState.SUCCEEDED:\n",
            ),
        ),
    ),
    Saboteur(
        "another-amount-is-done",
        "A refund that was carried out with another amount counts as done.",
        ("M1", "S14"),
        (f"{TEST}::test_a_refund_done_with_another_amount_is_a_contradiction",),
        (
            Change(
                ANSWER,
                "    if view.state is Answer.DONE and _is_mismatched(refund, view):\n",
                "    if view.state is Answer.FAILED and _is_mismatched(refund, view):\n",
            ),
        ),
    ),
    Saboteur(
        "refund-sum-unchecked",
        "More than was captured may be given back.",
        ("M2",),
        (
            f"{TEST}::test_an_amount_that_is_not_there_is_refused",
            f"{TEST}::test_the_database_itself_refuses_more_than_was_captured",
        ),
        (
            Change(
                REFUND,
                "    if amount_minor <= 0 or amount_minor > stream.refundable_minor:\n",
                "    if amount_minor <= 0:\n",
            ),
            Change(
                ARROWS,
                "    if refund.amount_minor <= 0 or refund.amount_minor > stream.refundable_minor:\n",
                "    if refund.amount_minor <= 0:\n",
            ),
            Change(
                MIGRATION,
                "('refund_reserved_minor__gte', 0), ('refund_reserved_minor__lte', models.F('captured_minor'))",
                "('refund_reserved_minor__gte', 0)",
            ),
        ),
    ),
    Saboteur(
        "refund-sum-without-lock",
        "What is left of a capture is read before the lock is granted.",
        ("M2",),
        (
            f"{RACES}::test_two_operators_refund_at_once_and_one_is_refused",
            f"{RACES}::test_parts_asked_for_at_once_go_one_after_the_other",
        ),
        (
            Change(
                REFUND,
                "    def decide(work: Work) -> RefundRequested:\n"
                "        stream = work.stream(stream_number)\n"
                "        if bind",
                "    before = Stream.objects.filter(number=stream_number).first()\n\n"
                "    def decide(work: Work) -> RefundRequested:\n        stream = work.stream(stream_number)\n"
                "        if before is not None:\n"
                "            stream.refund_reserved_minor = before.refund_reserved_minor\n"
                "        if bind",
            ),
        ),
    ),
    Saboteur(
        "two-refunds-at-once",
        "A second refund of a stream starts while the first is not finished.",
        ("M6",),
        (f"{TEST}::test_a_second_refund_waits_for_the_first",),
        (
            Change(
                ARROWS,
                "    if any(other.stream_id == stream.pk and other.state in ACTIVE_REFUND_STATES for other in work.refunds):\n"
                "        return RefundMove.ANOTHER_ACTIVE\n"
                "    if refund.amount_minor",
                "    if refund.amount_minor",
            ),
            Change(
                MIGRATION,
                "'ATTENTION'))), fields=('stream',), name='payonce_refund_one_active'",
                "'ATTENTION'))), fields=('stream', 'number'), name='payonce_refund_one_active'",
            ),
        ),
    ),
    Saboteur(
        "returned-money-stays-reserved",
        "Money that the channel took back from a refund cannot be refunded again.",
        ("M2",),
        (f"{TEST}::test_a_returned_refund_frees_the_money_and_reopens_the_order",),
        (
            Change(
                ARROWS,
                "        return RefundMove.NOT_SUCCEEDED\n    _release(work, refund)\n",
                "        return RefundMove.NOT_SUCCEEDED\n",
            ),
        ),
    ),
    Saboteur(
        "approver-may-equal-requester",
        "Whoever asked for a refund may approve it.",
        ("S15",),
        (
            "tests/payments/test_refund_transitions.py::test_the_requester_is_not_the_approver",
            f"{TEST}::test_the_database_refuses_an_approver_who_asked",
        ),
        (
            Change(ARROWS, "    if by == refund.requested_by:\n        return RefundMove.SAME_PERSON\n", ""),
            Change(
                MIGRATION,
                "models.Q(('approved_by', ''), models.Q(('approved_by', models.F('requested_by')), "
                "_negated=True), _connector='OR')",
                "models.Q(('amount_minor__gt', 0))",
            ),
        ),
    ),
    Saboteur(
        "large-refund-needs-nobody",
        "A large refund goes out without a second person.",
        ("S15",),
        (f"{TEST}::test_a_large_refund_waits_for_a_second_person",),
        (
            Change(
                REFUND,
                "        waits = needs_second_person(amount_minor, mine, conf.APPROVAL_MINOR)\n",
                "        waits = needs_second_person(amount_minor, mine, None)\n",
            ),
        ),
    ),
    Saboteur(
        "dispute-ignored",
        "Surplus is refunded although the channel shows that the money has left already.",
        ("M1", "M2"),
        (f"{TEST}::test_an_automatic_refund_stops_where_money_left_without_us",),
        (
            Change(
                RUN,
                "    if left or stream.channel_refunded_minor > moved_minor(work, stream, but=refund):\n",
                "    if left and stream.channel_refunded_minor > moved_minor(work, stream, but=refund):\n",
            ),
        ),
    ),
    Saboteur(
        "refused-refund-is-forgotten",
        "A refund that the channel refused reaches no person.",
        ("M3", "S13"),
        (f"{TEST}::test_a_definite_no_keeps_the_reservation_for_a_person",),
        (
            Change(
                ANSWER,
                "    if arrows.reject(work, refund, outcome.code) is RefundMove.MOVED:\n        to_person(",
                "    if arrows.reject(work, refund, outcome.code) is RefundMove.REPEAT:\n        to_person(",
            ),
        ),
    ),
    Saboteur(
        "float-amount",
        "An amount may be a float.",
        ("M8",),
        (
            f"{TEST}::test_an_amount_that_is_no_whole_number_is_a_mistake",
            "tests/orders/test_place.py::test_a_field_that_is_not_acceptable_is_named",
            "tests/orders/test_events.py::test_an_event_holds_no_float",
        ),
        (
            Change(
                REFUND,
                "    if isinstance(amount_minor, bool) or not isinstance(amount_minor, int):\n        raise TypeError",
                "    if isinstance(amount_minor, bool) or not isinstance(amount_minor, int | float):\n"
                "        raise TypeError",
            ),
            Change(
                "orders/place.py",
                "    if isinstance(amount_minor, bool) or not isinstance(amount_minor, int):\n",
                "    if isinstance(amount_minor, bool) or not isinstance(amount_minor, int | float):\n",
            ),
            Change("orders/events.py", "    _refuse_floats(body)\n    return", "    return"),
        ),
    ),
)
