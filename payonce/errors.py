"""The root of every error that payonce raises; each package draws its own tree below it in its `errors` module."""


class PayonceError(Exception):
    """Something that the caller of payonce did wrong or must know; the message says what to do next."""
