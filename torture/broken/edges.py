"""Broken builds of what the shop is told, of the API and of who may do what."""

from torture.sabotage import Change, Saboteur

KEYS = "payments/api/idempotency.py"
PUBLISH = "tests/path/test_publish.py"

BUILDS = (
    Saboteur(
        "message-marked-sent-before-it-was",
        "A message to the shop counts as told before the shop has heard it.",
        ("S11",),
        (
            f"{PUBLISH}::test_a_failing_shop_is_told_again_and_later_events_wait",
            "tests/crash/test_recovery_points.py::test_publish",
        ),
        (
            Change(
                "payments/publish.py",
                "        results = list(_deliver_all(batch))\n        message_rows.record(results)\n",
                '        message_rows.record([(row, Delivery.DELIVERED, "told") for row in batch])\n'
                "        results = list(_deliver_all(batch))\n",
            ),
        ),
    ),
    Saboteur(
        "shop-told-out-of-order",
        "A later event is told while an earlier one of the order waits.",
        ("S11",),
        (f"{PUBLISH}::test_a_failing_shop_is_told_again_and_later_events_wait",),
        (
            Change(
                "payments/message_rows.py",
                "      AND (health.failure_count IS NULL OR health.failure_count < %s)\n      AND NOT EXISTS (\n"
                "        SELECT 1 FROM payonce_shop_message AS older\n        WHERE older.order_id",
                "      AND (health.failure_count IS NULL OR health.failure_count < %s)\n      AND NOT EXISTS (\n"
                "        SELECT 1 FROM payonce_shop_message AS older\n        WHERE FALSE AND older.order_id",
            ),
        ),
    ),
    Saboteur(
        "shop-not-told-of-money",
        "No message about a paid order is owed to the shop.",
        ("S11", "S14"),
        (f"{PUBLISH}::test_the_shop_is_told_once_in_order",),
        (Change("payments/messages.py", '        "order.paid", "order.closed",', '        "order.closed",'),),
    ),
    Saboteur(
        "parked-for-nobody",
        "After the last try a message is given up without a case.",
        ("S11", "S13"),
        (f"{PUBLISH}::test_after_the_last_try_a_message_is_parked_for_a_person_who_resends_it",),
        (
            Change(
                "payments/message_rows.py",
                "        cases.open_case(\n            work, DiscrepancyKind.SHOP_NOT_TOLD, _case_subject(message),\n"
                '            f"{message.listener} was not told {message.kind} of {work.order.reference}: {text}",\n'
                "        )  # fmt: skip\n",
                "",
            ),
        ),
    ),
    Saboteur(
        "private-address-called",
        "A message to the shop may go to a private address.",
        ("X5",),
        (f"{PUBLISH}::test_a_private_address_is_not_called",),
        (
            Change(
                "payments/publish.py",
                "allow_private_hosts=conf.PRIVATE_HOSTS)",
                'allow_private_hosts=("localhost", "127.0.0.1", "::1"))',
            ),
        ),
    ),
    Saboteur(
        "idempotency-look-up-then-insert",
        "Whether an Idempotency-Key was used is looked up first, and the key inserted afterwards.",
        ("S9",),
        ("tests/concurrency/test_key_races.py::test_the_same_key_at_once_is_carried_out_by_one_call",),
        (
            Change(
                KEYS,
                "ON CONFLICT (caller, route, key) DO UPDATE SET lease_until = payonce_now() + %s * "
                "interval '1 second'\n"
                "    WHERE payonce_idempotency.made = '' AND payonce_idempotency.lease_until <= payonce_now()\n"
                "      AND payonce_idempotency.body_hash = excluded.body_hash\n"
                'RETURNING id, created_at, lease_until, (xmax <> 0)\n"""\n',
                'RETURNING id, created_at, lease_until, false\n"""\n'
                '_TAKE_OVER = """\n'
                "UPDATE payonce_idempotency SET lease_until = payonce_now() + %s * interval '1 second'\n"
                "    WHERE caller = %s AND route = %s AND key = %s AND body_hash = %s AND made = ''\n"
                '      AND lease_until <= payonce_now()\nRETURNING id, created_at, lease_until, true\n"""\n',
            ),
            Change(
                KEYS,
                "    found = _fly(Statement(_TAKE, [caller, route, key, body_hash, LEASE_SECONDS, LEASE_SECONDS]))\n",
                "    if _fly(Statement(_READ, [caller, route, key])):\n"
                "        found = _fly(Statement(_TAKE_OVER, [LEASE_SECONDS, caller, route, key, body_hash]))\n"
                "    else:\n"
                "        found = _fly(Statement(_TAKE, [caller, route, key, body_hash, LEASE_SECONDS]))\n",
            ),
            Change(
                "payments/migrations/0001_initial.py",
                "models.UniqueConstraint(fields=('caller', 'route', 'key'), name='payonce_idempotency_key')",
                "models.UniqueConstraint(fields=('caller', 'route', 'key', 'id'), name='payonce_idempotency_key')",
            ),
        ),
    ),
    Saboteur(
        "key-forgets-the-body",
        "The same Idempotency-Key with another body gets the first one's answer.",
        ("S9",),
        ("tests/api/test_pay.py::TestIdempotencyKey::test_same_key_with_another_body_is_refused",),
        (
            Change(
                KEYS,
                "    text = json.dumps([target, body], sort_keys=True, default=str)\n",
                "    text = json.dumps([target, sorted(body)], sort_keys=True, default=str)\n",
            ),
        ),
    ),
    Saboteur(
        "key-of-everybody",
        "An Idempotency-Key of one caller is found by another.",
        ("S9", "X3"),
        ("tests/api/test_pay.py::TestIdempotencyKey::test_key_of_another_caller_is_another_key",),
        (
            Change(
                KEYS,
                "    body_hash = _hash(target, body)\n    found",
                '    body_hash, caller = _hash(target, body), "anybody"\n    found',
            ),
        ),
    ),
    Saboteur(
        "buyer-acts-on-any-order",
        "A buyer's token is good for every order.",
        ("X3",),
        ("tests/api/test_callers.py::test_role_gets_what_is_its_own",),
        (
            Change(
                "payments/api/callers.py",
                "        if self.order and self.order != number:\n",
                "        if self.order and not number:\n",
            ),
        ),
    ),
    Saboteur(
        "body-without-a-bound",
        "A notification of any size is read.",
        ("X6",),
        ("tests/api/test_notifications.py::test_oversized_notification_is_refused_before_it_is_verified",),
        (
            Change(
                "payments/api/notifications.py",
                "    if length.isascii() and length.isdecimal() and int(length[:12]) > notify.BODY_BYTES_MAX:\n"
                "        return None\n",
                "",
            ),
            Change(
                "payments/api/notifications.py",
                "    body = request.read(notify.BODY_BYTES_MAX + 1)\n"
                "    return None if len(body) > notify.BODY_BYTES_MAX else body\n",
                "    return request.read() if length else None\n",
            ),
        ),
    ),
)
