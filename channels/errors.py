"""Errors of the channels package. They mean a caller's or an operator's mistake, never something that a channel did."""

from payonce.errors import PayonceError


class ChannelError(PayonceError):
    """Root of this package's errors."""


class ChannelConfigError(ChannelError):
    """An account's options are missing or wrong; the message names the setting and the fix."""


class UnknownAccount(ChannelError):
    """No account of this name in PAYONCE["CHANNELS"]."""


class UnknownAdapter(ChannelError):
    """No adapter of this name; the message lists those that exist."""
