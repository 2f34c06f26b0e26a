"""Notifications: only what the channel signed for this account, in time, is believed. Invariants X1 and X2."""

import dataclasses
from datetime import timedelta
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from payonce.channels.contract.simulator import Simulator
from payonce.channels.messages import (
    NotAuthentic,
    Notice,
    NotificationRequest,
    PaymentState,
    Verdict,
)

_HEADER_NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=30)
_ANYTHING = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class NotificationContract:
    """What holds for messages of the channel. `has_replay_window` is False for a channel that documents none.

    `headers_optional` are those that only name what the adapter pins anyway, such as the algorithm.
    """

    has_replay_window: ClassVar[bool] = True
    headers_optional: ClassVar[frozenset[str]] = frozenset()

    @pytest.fixture
    def notified(self, simulator: Simulator) -> tuple[str, NotificationRequest]:
        """The number of a paid stream and its notification as received."""
        number, _ = simulator.paid()
        message = simulator.notification(number)
        if message is None:
            pytest.skip("notifications cannot be simulated")
        return number, message

    def test_genuine_message_states_the_payment(
        self, simulator: Simulator, notified: tuple[str, NotificationRequest]
    ) -> None:
        number, message = notified
        notice = simulator.channel.parse_notification(message, simulator.now())
        assert isinstance(notice, Notice)
        assert 0 < len(notice.dedupe_key) <= 128
        assert notice.sent_at is None or notice.sent_at.tzinfo is not None
        assert notice.refund is None
        assert notice.payment is not None
        assert (notice.payment.number, notice.payment.state) == (number, PaymentState.PAID)
        assert (notice.payment.paid_minor, notice.payment.currency) == (simulator.amount_minor, simulator.currency)

    def test_same_message_has_the_same_key(
        self, simulator: Simulator, notified: tuple[str, NotificationRequest]
    ) -> None:
        number, message = notified
        repeated = simulator.notification(number)
        assert repeated is not None
        first = simulator.channel.parse_notification(message, simulator.now())
        second = simulator.channel.parse_notification(repeated, simulator.now())
        assert isinstance(first, Notice)
        assert isinstance(second, Notice)
        assert first.dedupe_key == second.dedupe_key

    def test_x1_altered_body_is_not_authentic(
        self, simulator: Simulator, notified: tuple[str, NotificationRequest]
    ) -> None:
        message = notified[1]
        for position in range(0, len(message.body), max(1, len(message.body) // 25)):
            flipped = bytearray(message.body)
            flipped[position] ^= 1
            altered = dataclasses.replace(message, body=bytes(flipped))
            _assert_refused(simulator, altered)
        _assert_refused(simulator, dataclasses.replace(message, body=message.body + b" "))
        _assert_refused(simulator, dataclasses.replace(message, body=b""))

    def test_x1_message_without_its_signature_is_not_authentic(
        self, simulator: Simulator, notified: tuple[str, NotificationRequest]
    ) -> None:
        message = notified[1]
        _assert_refused(simulator, dataclasses.replace(message, headers={}))
        needed = [name for name in message.headers if name not in self.headers_optional]
        for name in [name for name in needed if "signature" in name or "timestamp" in name]:
            left = {key: value for key, value in message.headers.items() if key != name}
            _assert_refused(simulator, dataclasses.replace(message, headers=left))
            for value in ("", "0", "x" * 500, "\u0661", message.headers[name][:-1]):
                _assert_refused(simulator, dataclasses.replace(message, headers={**message.headers, name: value}))

    def test_x1_message_of_another_account_is_not_authentic(
        self, simulator: Simulator, notified: tuple[str, NotificationRequest]
    ) -> None:
        foreign = simulator.foreign_notification(notified[0])
        if foreign is None:
            pytest.skip("another account cannot be simulated")
        _assert_refused(simulator, foreign)

    @pytest.mark.parametrize("days", [-1, 1], ids=["from the future", "from the past"])
    def test_x2_stale_message_is_named_and_refused(
        self, simulator: Simulator, notified: tuple[str, NotificationRequest], days: int
    ) -> None:
        if not self.has_replay_window:
            pytest.skip("the channel documents no replay window")
        number, message = notified
        fresh = simulator.channel.parse_notification(message, simulator.now())
        stale = simulator.channel.parse_notification(message, simulator.now() + timedelta(days=days))
        assert isinstance(fresh, Notice)
        assert isinstance(stale, NotAuthentic)
        assert (stale.stale, stale.number, stale.dedupe_key) == (True, number, fresh.dedupe_key)

    def test_verdicts_are_said_in_the_channels_words(self, simulator: Simulator) -> None:
        said = {verdict: simulator.channel.acknowledge(verdict, "because") for verdict in Verdict}
        assert 200 <= said[Verdict.ACCEPT].status < 300
        assert said[Verdict.RETRY].status >= 400
        assert said[Verdict.REJECT].status >= 400
        assert said[Verdict.RETRY].body != said[Verdict.ACCEPT].body or not said[Verdict.ACCEPT].body

    @_ANYTHING
    @given(body=st.binary(max_size=300), headers=st.dictionaries(_HEADER_NAMES, st.text(max_size=80), max_size=6))
    def test_x6_any_bytes_are_refused_and_never_raise(
        self, simulator: Simulator, body: bytes, headers: dict[str, str]
    ) -> None:
        _assert_refused(simulator, NotificationRequest(body, headers))

    @_ANYTHING
    @given(data=st.data())
    def test_x6_any_headers_on_a_genuine_body_never_raise(self, simulator: Simulator, data: st.DataObject) -> None:
        number, _ = simulator.paid()
        message = simulator.notification(number)
        if message is None:
            pytest.skip("notifications cannot be simulated")
        name = data.draw(st.sampled_from(sorted(message.headers)))
        headers = {**message.headers, name: data.draw(st.text(max_size=80))}
        simulator.channel.parse_notification(NotificationRequest(message.body, headers), simulator.now())


def _assert_refused(simulator: Simulator, message: NotificationRequest) -> None:
    judged = simulator.channel.parse_notification(message, simulator.now())
    assert isinstance(judged, NotAuthentic)
    assert not judged.stale
