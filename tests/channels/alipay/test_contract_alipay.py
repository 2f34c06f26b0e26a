"""The Alipay adapter keeps the public contract in both key modes, over real HTTP against the bank's Alipay gateway."""

from dataclasses import replace
from urllib.parse import urlencode

from payonce.channels.contract import ChannelContract
from payonce.channels.contract.simulator import known
from payonce.channels.messages import NotAuthentic, NotificationRequest, Refused, RefusedKind
from tests.channels.alipay.shop import AlipaySimulator, form_of


class TestAlipayKeepsTheContract(ChannelContract):
    has_replay_window = False

    def test_x1_message_without_its_signature_is_not_authentic(
        self, simulator: AlipaySimulator, notified: tuple[str, NotificationRequest]
    ) -> None:
        """Alipay signs inside the form, so it is fields that are taken away, not headers."""
        _, message = notified
        fields = form_of(message)
        spoilt = [{name: value for name, value in fields.items() if name != gone} for gone in ("sign", "sign_type")]
        spoilt += [{**fields, "sign": value} for value in ("", "0", "x" * 500, "\u0661", fields["sign"][:-1])]
        spoilt += [{**fields, "sign_type": value} for value in ("", "RSA", "rsa2", "NONE")]
        for changed in spoilt:
            judged = simulator.channel.parse_notification(
                replace(message, body=urlencode(changed).encode()), simulator.now()
            )
            assert isinstance(judged, NotAuthentic)
            assert not judged.stale

    def test_statement_holds_the_payment_and_its_refund(
        self, simulator: AlipaySimulator, paid: tuple[str, str]
    ) -> None:
        """A bill exists from the next morning on: today's is refused as not ready, tomorrow it holds both."""
        request = simulator.refund_request(*paid, f"r{paid[0]}", simulator.amount_minor)
        known(simulator.run(simulator.channel.refund(request)))
        today = simulator.now().date()
        early = simulator.run(simulator.channel.statement(today))
        assert isinstance(early, Refused)
        assert early.kind is RefusedKind.THROTTLED
        simulator.next_day()
        lines = known(simulator.run(simulator.channel.statement(today)))
        mine = [line for line in lines if paid[0] in {line.number, line.payment_number}]
        kinds = {(line.kind, line.amount_minor) for line in mine}
        assert kinds == {
            ("payment", simulator.amount_minor),
            ("refund", simulator.amount_minor),
        }
        assert {line.channel_reference for line in mine} == {paid[1]}
        assert [line.number for line in mine if line.kind == "refund"] == [request.refund_number]
