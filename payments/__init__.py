"""The `payonce.payments` package."""

if __name__ != "payonce.payments":
    raise ImportError(
        f"This package is `payonce.payments`, not `{__name__}`: import it through `payonce` "
        "(`from payonce.payments import …`), so that it cannot clash with a shop's own `payments` app."
    )
