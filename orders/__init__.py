"""The `payonce.orders` package."""

if __name__ != "payonce.orders":
    raise ImportError(
        f"This package is `payonce.orders`, not `{__name__}`: import it through `payonce` "
        "(`from payonce.orders import …`), so that it cannot clash with a shop's own `orders` app."
    )
