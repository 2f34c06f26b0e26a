"""Notify: a channel's signed call. Verified, stored once, applied in the same transaction, acknowledged after the commit.

A repeat costs one read. If applying fails, the notification commits alone as RECEIVED and a sweep applies it; nothing
verified is ever dropped, and nothing unverified is ever believed.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from django.db import DatabaseError

from payonce.channels import registry
from payonce.channels.base import Channel
from payonce.channels.errors import ChannelError, UnknownAccount
from payonce.channels.messages import Acknowledgement, NotAuthentic, Notice, NotificationRequest, Verdict
from payonce.orders.conf import get_settings
from payonce.orders.errors import OrderNotFound
from payonce.payments import clock, inbox, poll, refund_answer
from payonce.payments.errors import InsideTransaction, NotificationKnown
from payonce.payments.inbox import Received
from payonce.payments.locks import Work, under_lock
from payonce.payments.models import Notification
from payonce.payments.refund_run import follow_up
from payonce.payments.settle import Evidence, apply_evidence
from payonce.payments.statuses import Confirmation, NotificationState

log = logging.getLogger("payonce.notify")
BODY_BYTES_MAX = 256 * 1024


@dataclass(frozen=True, slots=True)
class NotifyResult:
    """The outcome, and what to answer the channel."""

    outcome: Received
    answer: Acknowledgement


def receive(account: str, request: NotificationRequest) -> NotifyResult:
    """Take one notification for an account. Never raises for what a sender does; answers "success" only once it is durable.

    Raises InsideTransaction when the caller has a transaction open: mark the view non_atomic_requests.
    """
    try:
        channel = registry.channel(account)
    except UnknownAccount:
        return NotifyResult(Received.UNKNOWN_ACCOUNT, Acknowledgement(404, b"unknown account"))
    except ChannelError:
        log.exception("the account %s is not configured: its notifications are refused", account)
        return NotifyResult(Received.UNCONFIGURED, Acknowledgement(503, b"not configured"))
    try:
        parsed = channel.parse_notification(request, clock.about_now())
        if isinstance(parsed, NotAuthentic):
            return _refuse(channel, parsed)
        return _accept(channel, request, parsed)
    except DatabaseError:
        log.exception("a notification for %s could not be stored", account)
        return NotifyResult(Received.NOT_DURABLE, channel.acknowledge(Verdict.RETRY, "not stored"))


def _accept(channel: Channel, request: NotificationRequest, notice: Notice) -> NotifyResult:
    account = channel.account
    accepted = channel.acknowledge(Verdict.ACCEPT)
    if inbox.state_of(account, notice.dedupe_key) == NotificationState.PROCESSED:
        return NotifyResult(Received.REPEAT, accepted)
    try:
        return NotifyResult(
            apply_notice(account, notice, lambda at: inbox.new_row(account, request, notice, at)), accepted
        )
    except NotificationKnown:
        return NotifyResult(Received.REPEAT, accepted)  # another request committed it while we waited
    except InsideTransaction:
        raise  # stored in a transaction that may yet be undone, it must not be acknowledged
    except Exception as error:
        log.exception("notification %s of %s is stored; a sweep will apply it", notice.dedupe_key, account)
        inbox.keep_for_later(account, request, notice, error)
        return NotifyResult(Received.STORED, accepted)


def apply_notice(account: str, notice: Notice, row: Callable[[datetime], Notification]) -> Received:
    """Apply a verified notice and store it as processed in one transaction."""
    number = inbox.number_of(notice)
    key: dict[str, Any] = {"refund" if notice.payment is None and notice.refund is not None else "stream": number}
    if notice.payment is not None and not number and notice.payment.channel_reference:
        key = {"reference": (account, notice.payment.channel_reference)}

    def decide(work: Work) -> Received:
        entry = row(work.at)
        entry.result = _apply(work, account, notice)
        inbox.put(work, entry)
        return Received.APPLIED

    try:
        return under_lock(f"channel:{account}", decide, **key)
    except OrderNotFound:
        if notice.refund is not None and notice.refund.payment_number:
            poll.nudge(notice.refund.payment_number, ended=True)  # a refund that is not ours, of money that may be
        return inbox.store_unmatched(account, notice, number, row)


def _apply(work: Work, account: str, notice: Notice) -> str:
    if notice.payment is not None and not notice.payment.number:
        return _ask(work, account, notice.payment.channel_reference)
    if notice.payment is not None:
        stream = work.stream(notice.payment.number)
        return apply_evidence(work, stream, Evidence(account, notice.payment, Confirmation.NOTIFICATION)).value
    assert notice.refund is not None
    row = work.refund(notice.refund.refund_number)
    stream = work.stream_of(row)
    if stream.account != account:
        return "wrong_account"
    refund_answer.apply_view(work, row, notice.refund)
    follow_up(work)
    return notice.refund.state.value


def _ask(work: Work, account: str, reference: str) -> str:
    """News that names only the channel's own reference, such as a dispute, is no evidence: the channel is asked."""
    stream = next(row for row in work.streams if (row.account, row.channel_reference) == (account, reference))
    stream.next_check_at = stream.nudged_at = work.at
    return "asked"


def _refuse(channel: Channel, refused: NotAuthentic) -> NotifyResult:
    """Forged: counted, nothing believed. Genuine but stale: a processed one is a success at any age, an unseen one is asked about."""
    account = channel.account
    if refused.stale and refused.dedupe_key and inbox.state_of(account, refused.dedupe_key) is not None:
        return NotifyResult(Received.REPEAT, channel.acknowledge(Verdict.ACCEPT))
    inbox.count_refused(account, refused.reason)
    if refused.stale and refused.number:
        if poll.nudge(refused.number, ended=True):
            poll.ask_about_refunds(refused.number)
        return NotifyResult(Received.STALE, channel.acknowledge(Verdict.REJECT, "stale"))
    return NotifyResult(Received.FORGED, channel.acknowledge(Verdict.REJECT, "not authentic"))


def apply_received(limit: int = 100) -> int:
    """The sweep: apply notifications that are stored but not processed. Returns how many were."""
    done = 0
    for row in inbox.claim_received(limit):
        try:
            apply_notice(row.account, inbox.read_notice(row.parsed), partial(inbox.processed, row))
            done += 1
        except Exception as error:
            log.exception("notification %s still cannot be applied", row.pk)
            inbox.try_later(row, error)
    return done


def apply_stored(notification_id: int) -> Received | None:
    """Apply one stored notification now, for a person; None when it still cannot be applied. A processed one is a repeat."""
    row = Notification.objects.using(get_settings().DATABASE).get(pk=notification_id)
    if row.state != NotificationState.RECEIVED:
        return Received.REPEAT
    try:
        notice = inbox.read_notice(row.parsed)
        return apply_notice(row.account, notice, lambda at: inbox.processed(row, at))
    except Exception as error:
        log.exception("notification %s still cannot be applied", row.pk)
        inbox.try_later(row, error)
        return None
