"""What the reference project reads from environment variables and from the checkout's generated secrets."""

import json
import os
import secrets
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

CHECKOUT = Path(__file__).resolve().parent.parent
STATE_FOLDER = CHECKOUT / ".payonce"  # git-ignored: generated secrets, logs, results
SANDBOX_ACCOUNTS: dict[str, dict[str, Any]] = {
    "sandbox_a": {"display_name": "Sandbox Wallet A"},  # a stream there can be closed, and the answer proves it
    "sandbox_b": {  # like Alipay: it knows nothing of a payment, and can close none, before the buyer opens it
        "display_name": "Sandbox Wallet B",
        "close_proof": "query",
        "not_found_before_buyer_acts": True,
    },
}


def text(name: str, default: str = "") -> str:
    """Return a variable, or the default when it is unset."""
    return os.environ.get(name, default)


def flag(name: str, default: bool = False) -> bool:
    """Return whether a variable says yes (`1`, `true`, `yes`, `on`)."""
    value = os.environ.get(name)
    return default if value is None else value.strip().lower() in {"1", "true", "yes", "on"}


def words(name: str, default: str = "") -> list[str]:
    """Return the comma-separated parts of a variable."""
    return [part.strip() for part in os.environ.get(name, default).split(",") if part.strip()]


def number(name: str, default: int) -> int:
    """Return a whole number; a value that is none is an error that names the variable."""
    value = os.environ.get(name)
    try:
        return int(value) if value else default
    except ValueError as error:
        raise ValueError(f"{name} must be a whole number; it is {value!r}.") from error


def parse_database_url(url: str) -> dict[str, Any]:
    """Return Django's connection settings for a `postgresql://` URL; `?host=/folder` means a unix socket."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ValueError("DATABASE_URL must start with postgresql://; payonce needs PostgreSQL 14 or newer.")
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": options.pop("user", None) or unquote(parts.username or ""),
        "PASSWORD": options.pop("password", None) or unquote(parts.password or ""),
        "HOST": options.pop("host", None) or unquote(parts.hostname or ""),
        "PORT": str(options.pop("port", None) or parts.port or ""),
        "OPTIONS": options,
    }


def with_database(url: str, name: str) -> str:
    """Return the URL of another database of the same server; an empty authority (a socket) stays empty."""
    scheme, _, rest = url.partition("://")
    authority, _, tail = rest.partition("/")
    query = tail.partition("?")[2]
    return f"{scheme}://{authority}/{name}" + (f"?{query}" if query else "")


def celery_broker_url(redis_url: str) -> str:
    """Return the broker URL for a Redis URL: Celery spells a unix socket differently."""
    parts = urlsplit(redis_url)  # an empty URL stays empty: no broker
    if parts.scheme != "unix":
        return redis_url
    database = dict(parse_qsl(parts.query)).get("db", "0")
    return f"redis+socket://{parts.path}?virtual_host={database}"


@cache
def local_secrets() -> dict[str, str]:
    """Return this checkout's own secrets, generated once into a git-ignored file that only its owner can read."""
    path = STATE_FOLDER / "secrets.json"
    if not path.exists():
        STATE_FOLDER.mkdir(mode=0o700, exist_ok=True)
        made = {name: secrets.token_urlsafe(48) for name in ("secret_key", *SANDBOX_ACCOUNTS)}
        draft = path.with_name(f"secrets.{os.getpid()}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(made, file)
        try:
            os.link(draft, path)  # whoever is first wins; never half a file
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    found: dict[str, str] = json.loads(path.read_text())
    return found


def secret_key() -> str:
    """Return SECRET_KEY, or the checkout's generated one."""
    return text("SECRET_KEY") or local_secrets()["secret_key"]


def channels() -> dict[str, dict[str, Any]]:
    """Return the sandbox accounts, and those of the file that PAYONCE_CHANNELS_FILE names (JSON by account)."""
    path = text("PAYONCE_CHANNELS_FILE")
    further: dict[str, dict[str, Any]] = json.loads(Path(path).read_text()) if path else {}
    return {**sandbox_channels(), **further}


def sandbox_channels() -> dict[str, dict[str, Any]]:
    """Return the demo's sandbox accounts, with secrets from PAYONCE_SANDBOX_SECRETS (JSON) or the checkout's own."""
    given = text("PAYONCE_SANDBOX_SECRETS")
    keys: dict[str, str] = json.loads(given) if given else local_secrets()
    return {
        account: {
            "adapter": "sandbox",
            "base_url": text("PAYONCE_SANDBOX_URL", "http://127.0.0.1:8801"),
            "merchant": account,
            "secret": keys[account],
            **options,
        }
        for account, options in SANDBOX_ACCOUNTS.items()
    }
