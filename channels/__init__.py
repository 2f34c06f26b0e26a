"""The `payonce.channels` package."""

if __name__ != "payonce.channels":
    raise ImportError(
        f"This package is `payonce.channels`, not `{__name__}`: import it through `payonce` "
        "(`from payonce.channels import …`), so that it cannot clash with a shop's own `channels` app."
    )
