"""Missing, wrong and expired keys give a system check that names the setting and the repair; secrets are told to nobody."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from payonce.channels import registry
from payonce.channels.alipay import AlipayChannel
from payonce.channels.alipay_account import GATEWAY_URL
from payonce.channels.alipay_wire import certificate_sn, certificates_of
from payonce.channels.checks import problems
from payonce.channels.errors import ChannelConfigError
from payonce.channels.keys import load_certificate
from payonce.channels.messages import CloseProof
from payonce.channels.sandbox.skins.alipay_keys import private_of, private_text, public_text
from tests.channels.alipay.shop import halves

BANK, SHOP = halves("alipay")
_, CERTIFIED = halves("alipay_cert")
_, OTHER = halves("alipay_cert")


def only(options: dict[str, Any]) -> Any:
    """The one thing that is wrong, without what only a deployment minds."""
    found = [problem for problem in problems({"alipay": options}) if not problem.deploy_only]
    assert len(found) == 1, found
    return found[0]


def without(options: dict[str, Any], *names: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**options, **changes}.items() if name not in names}


@pytest.mark.parametrize("options", [SHOP, CERTIFIED], ids=["public_key", "certificate"])
def test_complete_options_are_fine_and_live_is_the_default(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = without(options, "base_url")
    assert problems({"alipay": live}) == []
    monkeypatch.setattr(registry, "_source", lambda: {"alipay": live})
    registry.reset()
    try:
        channel = registry.channel("alipay")
    finally:
        registry.reset()
    assert isinstance(channel, AlipayChannel)
    assert channel.settings.base_url == GATEWAY_URL == "https://openapi.alipay.com/gateway.do"
    assert channel.merchant == live["seller_id"]


@pytest.mark.parametrize("name", ["app_id", "seller_id", "private_key"])
def test_missing_option_is_named(name: str) -> None:
    problem = only(without(SHOP, name))
    assert problem.id == "E105"
    assert f'"{name}"' in problem.message
    assert problem.hint


def test_missing_key_of_alipay_is_named_in_both_modes() -> None:
    """Absence of configuration never means acceptance."""
    problem = only(without(SHOP, "alipay_public_key"))
    assert problem.id == "E110"
    assert '"alipay_public_key"' in problem.message
    assert '"app_cert"' in problem.message
    for name in ("app_cert", "alipay_cert", "alipay_root_cert"):
        assert f'no "{name}"' in only(without(CERTIFIED, name)).message
    with pytest.raises(ChannelConfigError, match="alipay_public_key"):
        AlipayChannel("alipay", without(SHOP, "alipay_public_key"))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (without(SHOP, app_id="wx123"), "app_id"),
        (without(SHOP, seller_id="2088"), "seller_id"),
        (without(SHOP, private_key="canary-not-a-key"), "private_key"),
        (without(SHOP, private_key=SHOP["alipay_public_key"]), "private_key"),
        (without(SHOP, alipay_public_key="canary"), "alipay_public_key"),
        (without(SHOP, methods=["qr", "wep"]), "methods"),
        (without(SHOP, base_url="openapi.alipay.com"), "base_url"),
        (without(SHOP, timeout_seconds=60), "timeout_seconds"),
        (without(CERTIFIED, app_cert="canary"), "app_cert"),
        (without(CERTIFIED, alipay_cert=CERTIFIED["private_key"]), "alipay_cert"),
        (without(CERTIFIED, alipay_root_cert=""), "alipay_root_cert"),
        (without(CERTIFIED, alipay_root_cert="canary"), "alipay_root_cert"),
    ],
)
def test_wrong_option_is_named_and_its_value_is_not(options: dict[str, Any], name: str) -> None:
    """X4."""
    problem = only(options)
    assert f'"{name}"' in problem.message
    assert "canary" not in problem.message + problem.hint
    assert "PRIVATE KEY" not in problem.message


def test_own_public_key_in_the_place_of_alipays_is_recognised() -> None:
    """The usual mistake: it verifies nothing, so every answer would be unknown."""
    own = public_text(private_of(SHOP["private_key"]))
    problem = only(without(SHOP, alipay_public_key=own))
    assert "应用公钥" in problem.message
    assert "支付宝公钥" in problem.message


def test_certificate_of_another_key_is_recognised() -> None:
    assert '"private_key"' in only(without(CERTIFIED, app_cert=OTHER["app_cert"])).message


def test_both_modes_at_once_are_refused() -> None:
    assert "both" in only({**CERTIFIED, "alipay_public_key": SHOP["alipay_public_key"]}).message


@pytest.mark.parametrize("name", ["app_cert", "alipay_cert"])
def test_expired_certificate_is_named_with_its_day(name: str) -> None:
    key = private_of(CERTIFIED["private_key"])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old")])
    builder = x509.CertificateBuilder().issuer_name(subject).subject_name(subject).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    old = (
        builder.not_valid_after(datetime(2025, 1, 2, tzinfo=UTC))
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )
    problem = only(without(CERTIFIED, **{name: old}))
    assert f'"{name}"' in problem.message
    assert "expired on 2025-01-02" in problem.message
    assert problem.hint
    if name == "alipay_cert":  # a change-over: the new one beside the old one
        assert problems({"alipay": without(CERTIFIED, alipay_cert=old + CERTIFIED["alipay_cert"], base_url="")}) == []


def test_small_key_is_refused() -> None:
    small = rsa.generate_private_key(public_exponent=65_537, key_size=1_024)
    assert "2048" in only(without(SHOP, private_key=private_text(small))).message


def test_keys_are_read_as_the_key_tool_writes_them() -> None:
    """Bare base64 without the lines of PEM."""
    bare = {name: "".join(SHOP[name].splitlines()[1:-1]) for name in ("private_key", "alipay_public_key")}
    assert problems({"alipay": {**SHOP, **bare, "base_url": GATEWAY_URL}}) == []


def test_x4_keys_appear_in_no_representation() -> None:
    for options in (SHOP, CERTIFIED):
        channel = AlipayChannel("alipay", options)
        texts = [repr(channel), str(channel), repr(channel.settings)]
        lines = options["private_key"].splitlines()[1:-1]
        assert not any(line in text for line in lines for text in texts)


def test_certificate_number_is_issuer_and_serial_number() -> None:
    """MD5 of the issuer, most specific part first, and the decimal serial number."""
    import hashlib

    certificate = load_certificate(certificates_of(CERTIFIED["app_cert"])[0])
    issuer = "CN=Sandbox Certification Authority Class 2 R1,OU=Certification Authority,O=Sandbox,C=CN"
    expected = hashlib.md5(f"{issuer}{certificate.serial_number}".encode()).hexdigest()
    assert certificate_sn(certificate) == expected


def test_capabilities_are_those_of_the_products_that_were_signed() -> None:
    stated = AlipayChannel("alipay", {**SHOP, "methods": ["qr", "app"]}).capabilities
    assert list(stated.methods) == ["qr", "app"]
    assert stated.currencies == {"CNY"}
    assert (stated.close_proof, stated.not_found_before_buyer_acts) == (CloseProof.ANSWER, True)
    assert stated.enforces_expiry
    assert not stated.captures
    assert stated.replay_window_seconds is None
    assert stated.refund_interval_seconds == 3
    assert timedelta(seconds=stated.notification_horizon_seconds) > timedelta(hours=24, minutes=22)


def test_a_shop_that_goes_live_at_the_sandbox_is_told() -> None:
    gateway = "https://openapi-sandbox.dl.alipaydev.com/gateway.do"
    (found,) = problems({"alipay": {**SHOP, "base_url": gateway}})
    assert (found.id, found.deploy_only) == ("E111", True)
