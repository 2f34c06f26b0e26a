"""Broken builds of pay, close and expire."""

from torture.sabotage import Change, Saboteur

PAY = "payments/pay.py"
CLOSE = "payments/close.py"
CACHE = "payments/cache.py"
STREAMS = "payments/transitions/streams.py"

BUILDS = (
    Saboteur(
        "channel-call-inside-the-transaction",
        "The channel is asked for the prepay while the order is locked.",
        ("S6", "L6"),
        ("tests/concurrency/test_lock_timeouts.py::test_no_channel_is_ever_called_with_a_transaction_open",),
        (
            Change(
                "payments/call.py",
                "    if connection.in_atomic_block:\n",
                "    if connection.in_atomic_block and not account_is_trusted():\n",
            ),
            Change(
                "payments/call.py",
                "def let_go_of_database() -> None:\n",
                "def account_is_trusted() -> bool:\n    return True\n\n\ndef let_go_of_database() -> None:\n",
            ),
            Change(
                PAY,
                "    outcome = call(stream.account, lambda channel: channel.prepay(message))\n"
                "    result = under_lock(by, lambda work: _store(work, request, step, outcome), order=request.order)\n",
                "    def register(work: Work) -> PayResult | None:\n"
                "        outcome = call(stream.account, lambda channel: channel.prepay(message))\n"
                "        return _store(work, request, step, outcome)\n\n"
                "    result = under_lock(by, register, order=request.order)\n",
            ),
        ),
    ),
    Saboteur(
        "no-intent-row",
        "A stream's row is inserted when the channel has answered.",
        ("S6", "S7"),
        (
            "tests/crash/test_recovery_points.py::test_pay",
            "tests/path/test_pay.py::test_the_stream_is_committed_before_the_channel_hears_of_it",
        ),
        (
            Change(PAY, "    arrows.create(work, stream)\n    _void_after(work)\n", "    _void_after(work)\n"),
            Change(
                PAY,
                "    stream = work.stream(step.stream.number)\n    order = work.order\n",
                "    stream = step.stream\n"
                "    stream.order = work.order\n"
                "    if all(row.number != stream.number for row in work.streams):\n"
                "        arrows.create(work, stream)\n"
                "    order = work.order\n",
            ),
        ),
    ),
    Saboteur(
        "lease-ignored",
        "Whoever gets an answer about a prepay stores it, also after another click took the call over.",
        ("S3",),
        (
            "tests/path/test_pay.py::test_only_the_holder_of_the_lease_stores_the_prepay",
            "tests/crash/test_recovery_of_evidence.py::test_a_worker_that_wakes_after_its_lease_does_no_harm",
        ),
        (
            Change(
                PAY,
                "    if stream.state != StreamState.CREATED or stream.call_lease != step.lease:\n",
                "    if stream.state != StreamState.CREATED:\n",
            ),
        ),
    ),
    Saboteur(
        "prepay-for-a-closed-order",
        "An answer of the channel is handed out although the order moved on meanwhile.",
        ("S3", "S8"),
        (
            "tests/concurrency/test_place_races.py"
            "::test_a_new_amount_while_the_prepay_is_in_the_air_is_not_answered_with_the_old_one",
        ),
        (
            Change(
                PAY,
                "    if stream.state != StreamState.CREATED or stream.call_lease != step.lease:\n        return None\n",
                "",
            ),
            Change(
                PAY,
                "    if isinstance(outcome, Known) and order.state == OrderState.OPEN and not _is_stale_amount(stream, order):\n"
                "        arrows.take_prepay(work, stream, outcome.value)\n",
                "    if isinstance(outcome, Known):\n"
                "        stream.prepay_expires_at = outcome.value.expires_at\n"
                "        arrows.take_prepay(work, stream, outcome.value)\n",
            ),
        ),
    ),
    Saboteur(
        "unknown-prepay-has-failed",
        "A prepay without an answer counts as refused.",
        ("S4",),
        (
            "tests/path/test_pay.py::test_a_prepay_without_an_answer_has_not_failed",
            "tests/api/test_pay.py::TestIdempotencyKey::test_stream_without_an_answer_is_resumed_under_its_number",
        ),
        (
            Change(
                PAY,
                "    stream.is_answer_unknown = isinstance(outcome, Unknown)\n",
                '    arrows.fail(work, stream, "no answer")\n    stream.is_answer_unknown = isinstance(outcome, Unknown)\n',
            ),
        ),
    ),
    Saboteur(
        "stale-amount-handed-out-again",
        "An open stream is handed out again without comparing its amount with the order's.",
        ("M9", "S8"),
        ("tests/path/test_close.py::test_what_cannot_be_closed_is_not_taken_back_for_another_amount",),
        (
            Change(
                PAY,
                "    return (stream.amount_minor, stream.currency) != (order.amount_minor, order.currency)\n",
                "    return stream.currency != order.currency\n",
            ),
        ),
    ),
    Saboteur(
        "amended-without-watching",
        "The price changes while streams of the old amount stay as they are.",
        ("M9",),
        ("tests/orders/test_place.py::test_amending_watches_the_old_streams_and_changes_the_amount",),
        (
            Change(
                CLOSE,
                '    for stream in work.streams:\n        if arrows.start_closing(work, stream, "order amended")',
                '    for stream in work.streams[1:]:\n        if arrows.start_closing(work, stream, "order amended")',
            ),
        ),
    ),
    Saboteur(
        "cache-key-without-the-amount",
        "A change of the price leaves the cached prepay of the old amount to be handed out.",
        ("S8", "M9"),
        ("tests/path/test_pay.py::test_after_a_change_of_the_price_no_click_gets_the_old_prepay",),
        (
            Change(
                CLOSE,
                '    cache.void(order.number, order.version)\n    enqueue.kick("payonce.close")\n',
                '    enqueue.kick("payonce.close")\n',
            ),
        ),
    ),
    Saboteur(
        "cache-key-without-the-payer",
        "A cached prepay is handed to whoever asks for the same method.",
        ("S8",),
        ("tests/path/test_pay.py::test_a_cached_prepay_is_for_its_payer_and_client_alone",),
        (
            Change(
                "payments/pay_result.py",
                "    elif (entry.channel, entry.method, entry.client_type, entry.payer) == choice(request):\n",
                "    elif (entry.channel, entry.method) == choice(request)[:2]:\n",
            ),
        ),
    ),
    Saboteur(
        "tombstone-dropped",
        "Voiding a cached result only deletes it: a late writer brings it back.",
        ("S8",),
        ("tests/concurrency/test_redis_lies.py::test_a_late_writer_does_not_bring_an_old_prepay_back",),
        (
            Change(
                CACHE,
                '    _put(order_number, version - 1, f"{version - 1}::", TOMBSTONE_MS)\n',
                "    _try(lambda client: client.delete(_key(order_number)))\n",
            ),
        ),
    ),
    Saboteur(
        "cache-believed-unsigned",
        "A cached result is believed without its signature.",
        ("S8", "X1"),
        ("tests/concurrency/test_redis_lies.py",),
        (
            Change(
                CACHE,
                "    if not constant_time_compare(signature, _sign(order_number, body)):\n",
                "    if not body or not signature:\n",
            ),
        ),
    ),
    Saboteur(
        "switch-past-processing",
        "Another channel may be chosen while the money of the first may be on its way.",
        ("S16", "S3"),
        ("tests/path/test_pay.py::test_a_buyer_who_has_acted_gets_no_other_way_to_pay",),
        (
            Change(
                PAY,
                "    if any(row.state in BLOCKING_STREAM_STATES for row in work.streams):\n",
                "    if any(row.state == StreamState.CAPTURING for row in work.streams):\n",
            ),
            Change(
                STREAMS,
                "    if stream.state in BLOCKING_STREAM_STATES:\n        return StreamMove.BLOCKED\n    stream.close_reason",
                "    if stream.state == StreamState.CAPTURING:\n        return StreamMove.BLOCKED\n    stream.close_reason",
            ),
        ),
    ),
    Saboteur(
        "new-stream-beside-an-unproven-one",
        "A new stream opens beside an older one that is neither proven closed nor recorded as watched.",
        ("S3",),
        ("tests/path/test_close.py::test_an_unproven_older_stream_is_recorded_as_watched_before_a_new_one_opens",),
        (
            Change(
                PAY,
                "    for row in closing:\n        row.nudged_at = work.at\n        arrows.watch(work, row)\n    return None\n",
                "    return None\n",
            ),
        ),
    ),
    Saboteur(
        "already-paid-is-a-close-failure",
        'The answer "already paid" to a close counts as a close that failed.',
        ("S5",),
        ("tests/path/test_close.py::test_already_paid_as_the_answer_to_a_close_is_a_success",),
        (
            Change(
                CLOSE,
                "        if answer.payment is not None and answer.payment.state is not PaymentState.UNCLEAR:\n",
                "        if answer.payment is not None and answer.payment.state is PaymentState.CLOSED:\n",
            ),
        ),
    ),
    Saboteur(
        "order-closed-too-early",
        "An expired order is closed without waiting for the streams that may still be paid.",
        ("S16", "S4"),
        ("tests/path/test_expire.py",),
        (
            Change(
                "payments/expire.py",
                "    waiting = [stream for stream in work.streams if _holds_order(work, stream)]\n",
                "    waiting = [stream for stream in work.streams if stream.state == StreamState.CAPTURING]\n",
            ),
        ),
    ),
)
