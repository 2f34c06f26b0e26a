"""Broken builds of what is believed, acknowledged and asked again: notifications, polling and the sandbox's adapter."""

from torture.sabotage import Change, Saboteur

ADAPTER = "channels/sandbox/adapter.py"
NOTIFY = "payments/notify.py"

BUILDS = (
    Saboteur(
        "missing-signature-accepts",
        "A notification without a signature is believed.",
        ("X1",),
        (
            "tests/api/test_notifications.py::test_forgery_is_refused_and_changes_nothing",
            "tests/channels/test_sandbox_notifications.py",
        ),
        (
            Change(
                ADAPTER,
                "        if verdict in {SignatureVerdict.MISSING, SignatureVerdict.BAD}:\n",
                "        if verdict is SignatureVerdict.BAD:\n",
            ),
        ),
    ),
    Saboteur(
        "bad-signature-accepts",
        "A notification with a wrong signature is believed.",
        ("X1",),
        (
            "tests/api/test_notifications.py::test_forgery_is_refused_and_changes_nothing",
            "tests/channels/test_sandbox_notifications.py",
        ),
        (
            Change(
                ADAPTER,
                "        if verdict in {SignatureVerdict.MISSING, SignatureVerdict.BAD}:\n",
                "        if verdict is SignatureVerdict.MISSING:\n",
            ),
        ),
    ),
    Saboteur(
        "missing-key-accepts",
        "Without a secret everything counts as signed.",
        ("X1",),
        (
            "tests/channels/test_signing.py::test_empty_secret_signs_and_verifies_nothing",
            "tests/api/test_notifications.py::test_account_without_its_keys_is_unavailable",
        ),
        (
            Change(
                "channels/signing.py",
                '    if not secret:\n        raise ValueError("an empty secret signs nothing")\n    lines',
                "    lines",
            ),
        ),
    ),
    Saboteur(
        "wrong-merchant-accepts",
        "A notification for another merchant is believed.",
        ("X1",),
        ("tests/channels/test_sandbox_notifications.py::test_x1_message_for_another_account_is_not_authentic",),
        (
            Change(
                ADAPTER,
                '        if merchant != self.settings.merchant:\n            return NotAuthentic("wrong_account")\n',
                "        merchant = self.settings.merchant\n",
            ),
        ),
    ),
    Saboteur(
        "stale-notification-accepted",
        "An old notification that was never seen is believed at any age.",
        ("X2",),
        (
            "tests/path/test_notify.py::test_a_genuine_but_stale_unseen_notification_is_refused_and_triggers_a_query",
            "tests/channels/test_sandbox_notifications.py::test_x2_stale_message_names_its_stream",
        ),
        (
            Change(
                ADAPTER,
                "        if verdict is SignatureVerdict.STALE:\n",
                "        if verdict is SignatureVerdict.MISSING:\n",
            ),
        ),
    ),
    Saboteur(
        "unsigned-answer-believed",
        "An answer of the channel is believed without its signature.",
        ("X1", "S1"),
        (
            "tests/channels/test_contract_sandbox.py",
            "tests/channels/test_sandbox_faults.py",
            "tests/channels/test_sandbox_answers.py",
        ),
        (
            Change(
                ADAPTER,
                "        if verdict is not SignatureVerdict.GOOD:\n",
                "        if verdict is SignatureVerdict.STALE:\n",
            ),
        ),
    ),
    Saboteur(
        "time-out-is-a-failure",
        "A time-out after sending counts as a definite no.",
        ("S4", "M6"),
        ("tests/channels/test_contract_sandbox.py", "torture.crash --scenario pay-lost-poll"),
        (
            Change(
                ADAPTER,
                "            if reply.sent:\n                return Unknown(reply.reason)\n",
                "            if reply.sent:\n"
                '                return Refused(RefusedKind.DECLINED, "time_out", reply.reason)\n',
            ),
        ),
    ),
    Saboteur(
        "broken-channel-is-believed",
        "A signed answer with a 5xx is read as if it were definite.",
        ("S4",),
        (
            "tests/channels/test_contract_sandbox.py",
            "tests/channels/test_sandbox_answers.py::test_a_signed_5xx_is_unknown",
        ),
        (
            Change(
                ADAPTER,
                '        if reply.status >= 500:\n            return Unknown(f"status_{reply.status}", raw=raw)\n',
                "",
            ),
        ),
    ),
    Saboteur(
        "unlisted-code-is-a-refusal",
        "A code that nobody knows counts as a definite no.",
        ("S4",),
        (
            "tests/channels/test_contract_sandbox.py",
            "tests/channels/test_sandbox_faults.py",
            "tests/channels/test_sandbox_answers.py",
        ),
        (
            Change(
                ADAPTER,
                '        return Unknown(f"unlisted:{answer.code}", raw=answer.raw)\n',
                '        return Refused(RefusedKind.DECLINED, answer.code, "", answer.raw)\n',
            ),
        ),
    ),
    Saboteur(
        "acknowledge-before-commit",
        "The channel gets its success although the notification could not be stored.",
        ("S7",),
        (
            "tests/path/test_notify.py::test_what_cannot_be_stored_is_not_acknowledged",
            "tests/api/test_notifications.py::test_database_that_is_away_is_never_a_success",
        ),
        (
            Change(
                NOTIFY,
                'channel.acknowledge(Verdict.RETRY, "not stored")',
                'channel.acknowledge(Verdict.ACCEPT, "not stored")',
            ),
        ),
    ),
    Saboteur(
        "acknowledge-what-could-not-be-applied",
        "A notification that cannot be applied is acknowledged and not kept.",
        ("S7",),
        (
            ""
            "tests/path/test_notify.py::test_if_applying_fails_the_notification_is_stored_acknowledged_and_applied_by_the_sweep",
        ),
        (
            Change(
                NOTIFY,
                "        inbox.keep_for_later(account, request, notice, error)\n",
                '        log.info("%s", error)\n',
            ),
        ),
    ),
    Saboteur(
        "a-repeat-is-applied-again",
        "A notification is applied each time that it comes.",
        ("X2",),
        (
            "tests/path/test_notify.py::test_a_repeat_is_a_success_and_changes_nothing",
            "tests/concurrency/test_settle_races.py::test_the_same_notification_five_times_at_once_has_one_effect",
        ),
        (
            Change(
                NOTIFY,
                "    if inbox.state_of(account, notice.dedupe_key) == NotificationState.PROCESSED:\n"
                "        return NotifyResult(Received.REPEAT, accepted)\n",
                "",
            ),
            Change(
                "payments/migrations/0001_initial.py",
                "models.UniqueConstraint(fields=('account', 'dedupe_key'), name='payonce_notification_once')",
                "models.UniqueConstraint(fields=('account', 'dedupe_key', 'id'), name='payonce_notification_once')",
            ),
        ),
    ),
    Saboteur(
        "orphan-money-dropped",
        "Money under a number of ours that is no stream is acknowledged and forgotten.",
        ("M1", "S14"),
        ("tests/path/test_notify.py::test_money_under_a_number_of_ours_that_is_no_stream_is_an_orphan_case",),
        (
            Change(
                "payments/inbox.py",
                "    if is_ours and view is not None and view.state is PaymentState.PAID:\n",
                "    if is_ours and view is not None and view.state is PaymentState.CLOSED:\n",
            ),
        ),
    ),
    Saboteur(
        "sweep-off",
        "The sweep that asks about due streams does nothing.",
        ("L1", "S13"),
        (
            "tests/crash/test_recovery_points.py::test_pay_whose_buyer_never_comes_back",
            "torture.crash --scenario pay-lost-poll",
        ),
        (Change("payments/sweep.py", "    return poll.poll_due().asked\n", "    return 0\n"),),
    ),
    Saboteur(
        "inbox-sweep-off",
        "What was stored because it could not be applied is never applied.",
        ("S7", "S13"),
        ("tests/crash/test_recovery_of_evidence.py::test_stored_notification",),
        (Change("payments/sweep.py", "    return notify.apply_received()\n", "    return 0\n"),),
    ),
    Saboteur(
        "poll-ends-early",
        "Asking about a stream ends before the channel's last moment.",
        ("L1", "S13"),
        ("tests/payments/test_schedule.py",),
        (
            Change(
                "payments/schedule.py",
                "    end = max(stream.created_at + timedelta(seconds=horizon), last_look)\n",
                "    end = min(stream.created_at + timedelta(seconds=horizon), last_look)\n",
            ),
        ),
    ),
    Saboteur(
        "end-of-the-ladder-is-silence",
        "A stream that nobody can answer about is just not asked about any more.",
        ("S13",),
        ("tests/path/test_poll.py::test_the_end_of_the_ladder_is_a_case_and_never_silence",),
        (
            Change(
                "payments/settle.py",
                "    if stream.state not in WATCHED_STREAM_STATES or stream.close_reason == surplus.GIVEN_UP:\n",
                "    if stream.state in WATCHED_STREAM_STATES or stream.close_reason == surplus.GIVEN_UP:\n",
            ),
        ),
    ),
    Saboteur(
        "a-killed-workers-rows-are-lost",
        "A claim has no end: what a killed poller held is asked about by nobody.",
        ("L3",),
        ("tests/path/test_poll.py::test_a_killed_pollers_claim_comes_due_again",),
        (
            Change(
                "payments/claims.py",
                "        [schedule.CLAIM_SECONDS, list(registry.accounts()), closing, "
                "schedule.BREAKER_FAILURES, per_account],\n",
                "        [10**7, list(registry.accounts()), closing, schedule.BREAKER_FAILURES, per_account],\n",
            ),
        ),
    ),
    Saboteur(
        "two-pollers-ask-twice",
        "A poller claims rows that another one has claimed.",
        ("S6", "L3"),
        ("tests/path/test_poll.py::test_a_claimed_stream_is_not_claimed_again_before_its_lease_ends",),
        (
            Change(
                "payments/claims.py",
                "        [schedule.CLAIM_SECONDS, list(registry.accounts()), closing, "
                "schedule.BREAKER_FAILURES, per_account],\n",
                "        [0, list(registry.accounts()), closing, schedule.BREAKER_FAILURES, per_account],\n",
            ),
        ),
    ),
)
