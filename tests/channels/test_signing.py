"""Signatures: pinned algorithm, exact bytes, both directions of the replay window, and published vectors of Standard Webhooks."""

import base64
import hashlib
import hmac

import pytest

from payonce.channels.signing import (
    Signature,
    SignatureVerdict,
    new_webhook_secret,
    sign_answer,
    sign_notification,
    sign_request,
    sign_webhook,
    verify_answer,
    verify_notification,
    verify_request,
    verify_webhook,
)

SECRET = "a secret of more than thirty-two characters"
NOW = 1_700_000_000.0
# The example of the Standard Webhooks specification and its reference libraries.
VECTOR_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR_ID, VECTOR_SECONDS, VECTOR_BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}'
VECTOR_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def signed() -> Signature:
    return sign_request(SECRET, "blue", "POST", "/v1/payments?a=1", b"body", NOW)


def verdict(signature: Signature, seconds: float = NOW, **changes: object) -> SignatureVerdict:
    given: dict[str, object] = {"secret": SECRET, "account": "blue", "method": "POST", "target": "/v1/payments?a=1"}
    body = changes.pop("body", b"body")
    return verify_request(*{**given, **changes}.values(), body, signature, seconds)  # type: ignore[arg-type]


def test_good_signature_verifies() -> None:
    assert verdict(signed()) is SignatureVerdict.GOOD


@pytest.mark.parametrize(
    "change",
    [{"secret": SECRET + "x"}, {"account": "green"}, {"method": "GET"}, {"target": "/v1/payments?a=2"}, {"body": b""}],
)
def test_each_part_is_signed(change: dict[str, object]) -> None:
    assert verdict(signed(), **change) is SignatureVerdict.BAD


@pytest.mark.parametrize(
    ("seconds", "found"), [(300, "good"), (-300, "good"), (301, "stale_timestamp"), (-301, "stale_timestamp")]
)
def test_x2_replay_window_has_two_ends(seconds: int, found: str) -> None:
    assert verdict(signed(), NOW + seconds) == found


def test_stale_is_said_only_of_a_good_signature() -> None:
    assert verdict(signed(), NOW + 10**6, body=b"other") is SignatureVerdict.BAD


@pytest.mark.parametrize("prefix", ["", "hmac-md5=", "HMAC-SHA256=", "none=", "hmac-sha256= "])
def test_algorithm_is_pinned(prefix: str) -> None:
    good = signed()
    other = Signature(good.timestamp, good.nonce, prefix + good.value.removeprefix("hmac-sha256="))
    assert verdict(other) is SignatureVerdict.BAD


@pytest.mark.parametrize(
    "signature",
    [
        Signature("", "n" * 16, "x"),
        Signature("1", "", "x"),
        Signature("1", "n" * 16, ""),
    ],
)
def test_missing_part_is_missing(signature: Signature) -> None:
    assert verdict(signature) is SignatureVerdict.MISSING


@pytest.mark.parametrize("timestamp", ["\u0661\u0662", "1e9", "-1", "+1", " 1", "1.0", "9" * 13])
def test_timestamp_is_ascii_digits_only(timestamp: str) -> None:
    assert verdict(Signature(timestamp, "n" * 16, "x")) is SignatureVerdict.BAD


def test_answer_answers_one_request_only() -> None:
    signature = sign_answer(SECRET, "nonce-of-the-request", 200, b"body", NOW)
    assert verify_answer(SECRET, "nonce-of-the-request", 200, b"body", signature, NOW) is SignatureVerdict.GOOD
    for nonce, status, body in (("another-request", 200, b"body"), ("nonce-of-the-request", 201, b"body")):
        assert verify_answer(SECRET, nonce, status, body, signature, NOW) is SignatureVerdict.BAD


def test_kinds_of_messages_cannot_be_exchanged() -> None:
    signature = sign_notification(SECRET, "blue", b"body", NOW)
    assert verify_notification(SECRET, "blue", b"body", signature, NOW) is SignatureVerdict.GOOD
    assert verify_answer(SECRET, "blue", 200, b"body", signature, NOW) is SignatureVerdict.BAD
    assert verify_request(SECRET, "blue", "", "", b"body", signature, NOW) is SignatureVerdict.BAD


def test_empty_secret_signs_and_verifies_nothing() -> None:
    with pytest.raises(ValueError, match="empty secret"):
        sign_request("", "blue", "GET", "/", b"", NOW)
    with pytest.raises(ValueError, match="empty secret"):
        verify_request("", "blue", "GET", "/", b"", signed(), NOW)


def test_webhook_matches_the_published_vector() -> None:
    headers = sign_webhook(VECTOR_SECRET, VECTOR_ID, VECTOR_SECONDS, VECTOR_BODY)
    assert headers == {
        "webhook-id": VECTOR_ID,
        "webhook-timestamp": str(VECTOR_SECONDS),
        "webhook-signature": VECTOR_SIGNATURE,
    }
    assert verify_webhook(VECTOR_SECRET, headers, VECTOR_BODY, VECTOR_SECONDS) is SignatureVerdict.GOOD


def test_webhook_is_hmac_over_id_time_and_body() -> None:
    secret = new_webhook_secret()
    headers = sign_webhook(secret, "m1", NOW, b"{}")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, b"m1.1700000000.{}", hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_webhook_of_a_change_over_verifies_with_either_secret() -> None:
    old, new = new_webhook_secret(), new_webhook_secret()
    headers = sign_webhook((new, old), "m1", NOW, b"{}")
    assert [verify_webhook(each, headers, b"{}", NOW) for each in (old, new)] == [SignatureVerdict.GOOD] * 2
    assert verify_webhook(new_webhook_secret(), headers, b"{}", NOW) is SignatureVerdict.BAD


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"webhook-id": "m2"}, "bad_signature"),
        ({"webhook-timestamp": "1700000001"}, "bad_signature"),
        ({"webhook-timestamp": "\u0661"}, "bad_signature"),
        ({"webhook-signature": "v2,abc"}, "bad_signature"),
        ({"webhook-signature": "\udcff"}, "bad_signature"),
        ({"webhook-signature": ""}, "missing_signature"),
        ({"webhook-id": ""}, "missing_signature"),
    ],
)
def test_webhook_that_was_altered_is_refused(change: dict[str, str], found: str) -> None:
    secret = new_webhook_secret()
    headers = {**sign_webhook(secret, "m1", NOW, b"{}"), **change}
    assert verify_webhook(secret, headers, b"{}", NOW) == found


@pytest.mark.parametrize("seconds", [-301, 301])
def test_webhook_outside_the_window_is_stale(seconds: int) -> None:
    secret = new_webhook_secret()
    assert verify_webhook(secret, sign_webhook(secret, "m1", NOW, b""), b"", NOW + seconds) is SignatureVerdict.STALE


@pytest.mark.parametrize("secret", ["", "plain", "whsec_", "whsec_!!!!", "whsec_c2hvcnQ=", "whsec_\u0661"])
def test_weak_webhook_secret_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="webhook secret"):
        sign_webhook(secret, "m1", NOW, b"")


@pytest.mark.parametrize("message_id", ["", "a.b", "a\nb", "\u0661"])
def test_ambiguous_message_id_is_refused(message_id: str) -> None:
    with pytest.raises(ValueError, match="message id"):
        sign_webhook(new_webhook_secret(), message_id, NOW, b"")
