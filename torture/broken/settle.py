"""Broken builds of settle: whose money pays an order, and what becomes of the rest."""

from torture.sabotage import Change, Saboteur

SETTLE = "payments/settle.py"
SURPLUS = "payments/surplus.py"
TEST = "tests/path/test_settle.py"

_TAKEN = "    if taken != (stream.amount_minor, stream.currency) or taken != (order.amount_minor, order.currency):\n"

BUILDS = (
    Saboteur(
        "amount-unchecked",
        "Money of another amount settles the order.",
        ("S1", "M1"),
        (f"{TEST}::test_mismatched_money_never_settles",),
        (
            Change(SETTLE, _TAKEN, "    if view.currency != stream.currency or view.currency != order.currency:\n"),
            Change(
                "payments/migrations/0001_initial.py",
                "models.Q(('captured_currency', models.F('currency')), ('captured_minor', models.F('amount_minor')))",
                "models.Q(('captured_minor__gt', 0))",
            ),
        ),
    ),
    Saboteur(
        "currency-unchecked",
        "Money of another currency settles the order.",
        ("S1", "M1"),
        (f"{TEST}::test_mismatched_money_never_settles",),
        (
            Change(
                SETTLE,
                _TAKEN,
                "    if view.paid_minor != stream.amount_minor or view.paid_minor != order.amount_minor:\n",
            ),
            Change(
                "payments/migrations/0001_initial.py",
                "models.Q(('captured_currency', models.F('currency')), ('captured_minor', models.F('amount_minor')))",
                "models.Q(('captured_minor__gt', 0))",
            ),
        ),
    ),
    Saboteur(
        "old-amount-settles",
        "A payment of the amount before an amendment settles the order.",
        ("M9", "S1"),
        (f"{TEST}::test_a_payment_of_the_old_amount_never_settles_the_amended_order",),
        (Change(SETTLE, _TAKEN, "    if taken != (stream.amount_minor, stream.currency):\n"),),
    ),
    Saboteur(
        "account-unchecked",
        "Evidence of one account settles the stream of another.",
        ("S1", "X1"),
        (
            f"{TEST}::test_money_reported_by_another_account_changes_nothing_but_opens_a_case",
            "tests/path/test_notify.py::test_another_accounts_notification_settles_nothing",
        ),
        (
            Change(
                SETTLE,
                "    if evidence.account != stream.account or not is_own_merchant(stream, view.merchant):\n",
                "    if not is_own_merchant(stream, view.merchant):\n",
            ),
        ),
    ),
    Saboteur(
        "merchant-unchecked",
        "Money that was paid to another merchant settles the order.",
        ("S1", "X1"),
        (f"{TEST}::test_money_that_names_another_merchant_changes_nothing_but_opens_a_case",),
        (
            Change(
                SETTLE,
                "    if evidence.account != stream.account or not is_own_merchant(stream, view.merchant):\n",
                "    if evidence.account != stream.account:\n",
            ),
        ),
    ),
    Saboteur(
        "last-payment-keeps",
        "The second success takes the first one's place as the keeper.",
        ("M4", "M5"),
        (f"{TEST}::test_first_success_keeps_and_second_success_is_surplus",),
        (
            Change(
                SETTLE,
                "    if order.keeper is not None:\n        return StreamRole.SURPLUS, SurplusReason.DUPLICATE, True\n",
                "",
            ),
            Change(
                "orders/transitions.py",
                "    if order.keeper is not None:\n"
                "        return OrderMove.HAS_KEEPER\n"
                "    before = order.state\n"
                "    order.keeper",
                "    before = OrderState.OPEN\n    order.keeper",
            ),
            Change(
                "orders/migrations/0002_guards.py",
                'CLOCK + ";" + APPEND_ONLY + KEEPER_FIXED',
                'CLOCK + ";" + APPEND_ONLY',
            ),
            Change(
                "payments/migrations/0001_initial.py",
                "models.Q(('role', 'keeper')), fields=('order',), name='payonce_stream_one_keeper'",
                "models.Q(('role', 'keeper')), fields=('order', 'number'), name='payonce_stream_one_keeper'",
            ),
        ),
    ),
    Saboteur(
        "refunds-the-keeper",
        "A duplicate is answered by refunding the keeper instead of the surplus.",
        ("M5", "M3"),
        (f"{TEST}::test_first_success_keeps_and_second_success_is_surplus", "tests/path/test_refund.py"),
        (
            Change(
                SURPLUS,
                "        _reserve(work, stream, RefundPurpose.SURPLUS, stream.refundable_minor, "
                "reason.value, AUTOMATON)\n",
                "        _reserve(\n"
                "            work,\n"
                "            next((row for row in work.streams if row.role == StreamRole.KEEPER), stream),\n"
                "            RefundPurpose.SURPLUS,\n"
                "            stream.refundable_minor,\n"
                "            reason.value,\n"
                "            AUTOMATON,\n"
                "        )\n",
            ),
            Change(
                "payments/policy.py",
                "    if stream.role != StreamRole.SURPLUS:\n        return PolicyAnswer.KEEPER\n",
                "    if stream.role == StreamRole.NONE:\n        return PolicyAnswer.KEEPER\n",
            ),
        ),
    ),
    Saboteur(
        "policy-lets-the-keeper-go",
        "The policy of automatic refunds does not ask whether the stream is the keeper.",
        ("M5",),
        ("tests/path/test_refund.py::test_the_keeper_is_never_refunded_automatically",),
        (
            Change(
                "payments/policy.py",
                "    if stream.role != StreamRole.SURPLUS:\n        return PolicyAnswer.KEEPER\n",
                "    if stream.role == StreamRole.NONE:\n        return PolicyAnswer.KEEPER\n",
            ),
        ),
    ),
    Saboteur(
        "second-capture-is-a-repeat",
        "Another reference under the same number counts as the same money told again.",
        ("M1", "M3"),
        (f"{TEST}::test_another_reference_under_the_same_number_is_adopted_and_refunded_by_its_reference",),
        (
            Change(
                SETTLE,
                "    if reference and stream.channel_reference and reference != stream.channel_reference:\n",
                "    if reference and stream.channel_reference and not reference:\n",
            ),
        ),
    ),
    Saboteur(
        "one-reference-pays-twice",
        "The database lets one channel reference pay two streams.",
        ("M7",),
        ("tests/path/test_notify.py::test_a_reference_that_paid_another_stream_pays_no_second_one",),
        (
            Change(
                "payments/migrations/0001_initial.py",
                "fields=('account', 'channel_reference'), name='payonce_stream_reference'",
                "fields=('account', 'channel_reference', 'number'), name='payonce_stream_reference'",
            ),
        ),
    ),
    Saboteur(
        "late-money-settles",
        "Money for a closed order pays it without asking the shop.",
        ("M1",),
        (f"{TEST}::test_late_money_is_given_back",),
        (
            Change(
                SETTLE,
                "        decision = judge_late(work, view.paid_at or work.at)\n",
                "        decision = LateDecision.ACCEPT\n",
            ),
        ),
    ),
    Saboteur(
        "siblings-stay-open",
        "When an order is paid, its other open streams stay open to the buyer.",
        ("S3", "M3"),
        ("tests/found/test_evidence.py::test_accepting_surplus_as_the_payment_closes_the_other_open_streams", TEST),
        (
            Change(
                SURPLUS,
                "        if sibling.state in WATCHED_STREAM_STATES:  # the keeper has its money\n",
                "        if sibling is keeper and sibling.state in WATCHED_STREAM_STATES:\n",
            ),
        ),
    ),
    Saboteur(
        "closed-overrides-paid",
        'A late "closed" takes a success back.',
        ("S2",),
        ("tests/payments/test_arrow_effects.py",),
        (
            Change(
                SETTLE,
                "    if stream.state == StreamState.SUCCEEDED:\n"
                '        return _contradict(work, stream, evidence, "says closed and never paid")\n',
                "",
            ),
            Change(
                "payments/transitions/streams.py",
                "    if stream.state == StreamState.SUCCEEDED:\n"
                "        return StreamMove.FINAL\n"
                "    stream.close_proof = proof\n",
                "    stream.close_proof = proof\n",
            ),
        ),
    ),
    Saboteur(
        "unconfirmed-closing-wins",
        "A success for a stream that was proven closed is not recorded.",
        ("S2", "M1"),
        (f"{TEST}::test_money_after_a_proven_close_still_pays_the_order",),
        (
            Change(
                SETTLE,
                "    if view.paid_minor <= 0:\n"
                '        return _contradict(work, stream, evidence, "says paid without an amount")\n'
                "    role",
                "    if view.paid_minor <= 0 or stream.state == StreamState.CLOSED:\n"
                '        return _contradict(work, stream, evidence, "says paid without an amount")\n    role',
            ),
        ),
    ),
    Saboteur(
        "not-found-proves-closing",
        'An answer "not found" closes a stream whose time is not over.',
        ("S4",),
        (
            "tests/payments/test_evidence_table.py::test_no_payment_asked_after_the_end_of_its_time_proves_closing",
            "tests/path/test_poll.py",
        ),
        (
            Change(
                "payments/schedule.py",
                "    return asked_at > unpayable_after(stream, capabilities, grace_seconds)\n",
                "    return asked_at > stream.created_at and grace_seconds >= 0\n",
            ),
        ),
    ),
    Saboteur(
        "outside-refund-unnoticed",
        "Money that the channel gave back without payonce opens no case.",
        ("M1", "S14"),
        (f"{TEST}::test_money_returned_outside_payonce_opens_a_case",),
        (Change(SETTLE, "    if without_us > 0:\n", "    if without_us > stream.captured_minor:\n"),),
    ),
)
