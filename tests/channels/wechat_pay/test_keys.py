"""Keys and options: a missing, wrong or expired one is named, and the published signature verifies."""

import datetime as dt
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from payonce.channels import checks
from payonce.channels.errors import ChannelConfigError
from payonce.channels.messages import Known, PaymentState
from payonce.channels.sandbox.skins import wechat_pay_wire
from payonce.channels.wechat_pay import WeChatPayChannel
from payonce.channels.wechat_pay_keys import Signed, normal_serial
from tests.channels.wechat_pay.offline import REF, Desk
from tests.channels.wechat_pay.simulator import Merchant

# pay.weixin.qq.com/docs/merchant/development/interface-rules/build-verify-sign-src.html: an answer and its headers. The
# key is the one that the page for platform certificates prints; the page for public keys prints one that does not fit.
PUBLISHED_KEY = """-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAwXNI6sdlknHBnK8Fu2U6
Cwor9qY747jP8KAfeBMeveEt1TqaHkLfaSD07trZLhGpfs8/AHqjhgSMO1O10YQW
OrrJ4hjIWPKqxbgrYMkBQc+mwdiWp4W3ByCqxBRagCveCXRWCmuJYovl9H/bsDI0
iGbpVtEOghJtfciisYSgxcLufUDTRkvwxjIBK1pCRjk33jJ5YTBWTHMRtMAOcFLN
F6hdEYdX8SPsgHHeLZ5Lv2T/686w1xtgCHef/sd4uSfWmyzsalQdHG/e4IyYmrhx
+O3VBoNDzE3nx23bFeV/RVNCG7cV6VhmYokJNHa/erIPkEmEFID6A5wQOXuxUkmJ
WwIDAQAB
-----END PUBLIC KEY-----"""
PUBLISHED_BODY = b'{"code_url":"weixin://wxpay/bizpayurl?pr=JyC91EIz1"}'
PUBLISHED_HEADERS = {
    "wechatpay-timestamp": "1722850421",
    "wechatpay-nonce": "d824f2e086d3c1df967785d13fcd22ef",
    "wechatpay-serial": "PUB_KEY_ID_0000000000000024101100397200000006",
    "wechatpay-signature-type": "WECHATPAY2-SHA256-RSA2048",
    "wechatpay-signature": (
        "mfI1CPqvBrgcXfgXMFjdNIhBf27ACE2YyeWsWV9ZI7T7RU0vHvbQpu9Z32ogzc+k8ZC5n3kz7h70eWKjgqNdKQF0eRp8mVKlmfzMLBVHbssB"
        "9jEZEDXThOX1XFqX7s7ymia1hoHQxQagPGzkdWxtlZPZ4ZPvr1RiqkgAu6Is8MZgXXrRoBKqjmSdrP1N7uxzJ/cjfSiis9FiLjuADoqmQ1P7"
        "p2N876YPAol7Rn0+GswwAwxldbdLrmVSjfytfSBJFqTMHn4itojgxSWWN1byuckQt8hSTEv/Lg97QoeGniYP17T80pJeQyL3b+295FPHSO2A"
        "tvCgyIbKMZ0BALilAA=="
    ),
}


@pytest.fixture(scope="module")
def merchant() -> Merchant:
    return Merchant("switching")


@pytest.fixture
def options(merchant: Merchant) -> dict[str, Any]:
    return dict(merchant.bank["shop"])


def test_the_published_answer_verifies_and_a_changed_one_does_not(options: dict[str, Any]) -> None:
    account = WeChatPayChannel(
        "wx",
        {**options, "public_key": PUBLISHED_KEY, "public_key_id": PUBLISHED_HEADERS["wechatpay-serial"]},
    ).settings
    assert account.check(PUBLISHED_HEADERS, PUBLISHED_BODY, 1722850421) is Signed.GOOD
    assert account.check(PUBLISHED_HEADERS, PUBLISHED_BODY, 1722850421 + 301) is Signed.STALE
    assert account.check(PUBLISHED_HEADERS, PUBLISHED_BODY + b" ", 1722850421) is Signed.BAD
    changed = {**PUBLISHED_HEADERS, "wechatpay-nonce": "d824f2e086d3c1df967785d13fcd22ee"}
    assert account.check(changed, PUBLISHED_BODY, 1722850421) is Signed.BAD


def test_both_keys_verify_during_a_change_over(merchant: Merchant) -> None:
    desk = Desk(merchant)
    for serial in (merchant.keys["public_key_id"], wechat_pay_wire.platform_serial(merchant.keys)):
        reply = desk.signed(200, desk.paid())
        headers = wechat_pay_wire.signed_headers(merchant.keys, serial, reply.body, desk.channel.clock())
        outcome = desk.run(desk.channel.query(REF), type(reply)(200, headers, reply.body))
        assert isinstance(outcome, Known)
        assert outcome.value.state is PaymentState.PAID


def test_serials_are_compared_as_numbers() -> None:
    assert normal_serial("00ab12") == normal_serial("AB12") == "AB12"
    assert normal_serial("PUB_KEY_ID_0aB") == "PUB_KEY_ID_0aB"


def test_a_complete_account_has_no_problem(options: dict[str, Any]) -> None:
    assert checks.problems({"wx": options}) == []


@pytest.mark.parametrize(
    ("changes", "identifier", "words"),
    [
        ({"mchid": ""}, "E105", '"mchid"'),
        ({"mchid": "19000x"}, "E107", "digits only"),
        ({"appid": None}, "E105", '"appid"'),
        ({"private_key": ""}, "E105", '"private_key"'),
        ({"private_key": "nonsense"}, "E106", "is not a private key"),
        ({"apiv3_key": "short"}, "E106", "32 letters and digits"),
        ({"apiv3_key": ""}, "E105", '"apiv3_key"'),
        ({"public_key": "nonsense"}, "E107", "is not a public key"),
        ({"public_key_id": "4DF076AC"}, "E107", "PUB_KEY_ID_"),
        ({"public_key_id": ""}, "E110", 'no "public_key_id"'),
        ({"public_key": ""}, "E110", 'no "public_key"'),
        ({"public_key": "", "public_key_id": "", "platform_certificates": None}, "E110", "nothing that WeChat Pay"),
        ({"certificate": "", "certificate_serial": ""}, "E110", "apiclient_cert.pem"),
        ({"certificate_serial": "1234ABCD"}, "E110", "certificate_serial"),
        ({"certificate": "nonsense"}, "E107", "is not a certificate"),
        ({"platform_certificates": ["!"]}, "E107", "is not a certificate"),
        ({"methods": ["native"]}, "E107", "must be one of"),
        ({"mch_id": "1900000001"}, "E104", 'Did you mean "mchid"?'),
        ({"base_url": "api.mch.weixin.qq.com"}, "E107", "absolute http or https URL"),
    ],
    ids=str,
)
def test_what_is_missing_or_wrong_is_named(
    options: dict[str, Any], changes: dict[str, Any], identifier: str, words: str
) -> None:
    """A system check says which setting and, in its text or hint, what to do; the adapter refuses to be made."""
    given = {**options, **changes}
    found = checks.problems({"wx": given})
    assert [problem.id for problem in found] == [identifier]
    assert words in found[0].message + found[0].hint
    assert 'PAYONCE["CHANNELS"]["wx"]' in found[0].message
    secrets = [options["private_key"].split("\n")[1], options["apiv3_key"]]
    assert not any(secret in found[0].message for secret in secrets)
    if identifier != "E104":
        with pytest.raises(ChannelConfigError):
            WeChatPayChannel("wx", given)


def test_keys_that_do_not_belong_together_are_named(options: dict[str, Any], merchant: Merchant) -> None:
    other = Merchant("public_key").bank["shop"]
    with pytest.raises(ChannelConfigError, match=r'"certificate"\] does not belong to \["private_key"\]'):
        WeChatPayChannel("wx", {**options, "certificate": other["certificate"]})
    with pytest.raises(ChannelConfigError, match="merchant's own key"):
        WeChatPayChannel("wx", {**options, "public_key": merchant.keys["merchant_certificate"]})


def test_an_expired_merchant_certificate_is_named(options: dict[str, Any]) -> None:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    given = {**options, "private_key": private_pem(key), "certificate": certificate(key, days=-1)}
    found = checks.problems({"wx": given})
    assert [problem.id for problem in found] == ["E107"]
    assert '["certificate"] expired on 20' in found[0].message
    assert "Account center" in found[0].hint


def test_expired_platform_certificates_are_left_out_and_the_last_one_is_an_error(options: dict[str, Any]) -> None:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    expired, valid = certificate(key, days=-1), certificate(key, days=5)
    alone = {**options, "public_key": "", "public_key_id": ""}
    with pytest.raises(ChannelConfigError, match=r'platform_certificates"\] expired on 20'):
        WeChatPayChannel("wx", {**alone, "platform_certificates": [expired]})
    channel = WeChatPayChannel("wx", {**alone, "platform_certificates": [expired, valid]})
    assert len(channel.settings.verifiers) == 1
    assert channel.settings.asked_serial == next(iter(channel.settings.verifiers))
    with_public_key = WeChatPayChannel("wx", {**options, "platform_certificates": [expired]})
    assert list(with_public_key.settings.verifiers) == [options["public_key_id"]]


def test_the_serial_alone_is_enough_and_a_bare_key_too(options: dict[str, Any]) -> None:
    bare = "".join(options["private_key"].split("\n")[1:-2])
    given = {**options, "certificate": "", "certificate_serial": "1dde55ad98ed71d6edd4a4a16996de7b47773a8c",
             "private_key": bare}  # fmt: skip
    channel = WeChatPayChannel("wx", given)
    assert 'serial_no="1dde55ad98ed71d6edd4a4a16996de7b47773a8c"' in channel.settings.authorization("GET", "/", b"", 1)


def certificate(key: rsa.RSAPrivateKey, days: int) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(days=30))
    made = builder.not_valid_after(now + dt.timedelta(days=days)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def private_pem(key: rsa.RSAPrivateKey) -> str:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()
