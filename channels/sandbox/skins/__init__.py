"""Wire formats of the bank, one module each: its own JSON dialect, and those of real channels.

A skin is thin: it checks and reads requests as strictly as the real channel, asks the bank, and writes and signs the answer.
Money, numbers, faults and notifications are the bank's.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from payonce.channels.sandbox.skins.base import Skin

OWN = "own"
# Imported on first use: a bank without such an account needs none of it.
_PATHS = {
    OWN: "payonce.channels.sandbox.dialect.Dialect",
    "paypal": "payonce.channels.sandbox.skins.paypal.PayPalSkin",
    "wechat_pay": "payonce.channels.sandbox.skins.wechat_pay.WeChatPay",
    "alipay": "payonce.channels.sandbox.skins.alipay.AlipaySkin",
    "alipay_cert": "payonce.channels.sandbox.skins.alipay.AlipayCertificateSkin",
    "stripe": "payonce.channels.sandbox.skins.stripe.StripeSkin",
}
NAMES = tuple(_PATHS)


def skin_class(name: str) -> "type[Skin]":
    """The class of a skin. Raises ValueError for a name that is none of NAMES."""
    if name not in _PATHS:
        raise ValueError(f"the sandbox has no skin {name!r}; it has: {', '.join(NAMES)}")
    module, _, found = _PATHS[name].rpartition(".")
    skin: type[Skin] = getattr(import_module(module), found)
    return skin
