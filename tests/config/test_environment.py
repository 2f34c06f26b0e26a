"""What the reference project reads from its environment."""

import json
import stat
import threading
from pathlib import Path

import pytest

from config import environment


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://user:p%40ss@db.example:5433/shop?sslmode=require",
            {"NAME": "shop", "USER": "user", "PASSWORD": "p@ss", "HOST": "db.example", "PORT": "5433"},
        ),
        (
            "postgresql:///payonce?host=%2Ftmp%2Fplace&port=5432&user=payonce",
            {"NAME": "payonce", "USER": "payonce", "PASSWORD": "", "HOST": "/tmp/place", "PORT": "5432"},
        ),
    ],
)
def test_database_url_becomes_connection_settings(url: str, expected: dict[str, str]) -> None:
    found = environment.parse_database_url(url)
    assert {name: found[name] for name in expected} == expected
    assert found["OPTIONS"] == ({"sslmode": "require"} if "sslmode" in url else {})


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("postgresql:///payonce?host=%2Ftmp&user=payonce", "postgresql:///shop?host=%2Ftmp&user=payonce"),
        ("postgresql://user:secret@db.example:5433/payonce", "postgresql://user:secret@db.example:5433/shop"),
    ],
)
def test_another_database_of_the_same_server(url: str, other: str) -> None:
    assert environment.with_database(url, "shop") == other


def test_other_databases_are_refused() -> None:
    with pytest.raises(ValueError, match="needs PostgreSQL"):
        environment.parse_database_url("mysql://db.example/shop")


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("unix:///tmp/place/redis.sock?db=3", "redis+socket:///tmp/place/redis.sock?virtual_host=3"),
        ("rediss://cache.example:6380/1", "rediss://cache.example:6380/1"),
        ("", ""),
    ],
)
def test_celery_spells_a_redis_socket_in_its_own_way(url: str, broker: str) -> None:
    assert environment.celery_broker_url(url) == broker


def test_wrong_number_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "many")
    with pytest.raises(ValueError, match="PORT must be a whole number; it is 'many'"):
        environment.number("PORT", 1)


def test_local_secrets_are_made_once_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "STATE_FOLDER", tmp_path / "state")
    read = environment.local_secrets.__wrapped__
    found: list[dict[str, str]] = []
    threads = [threading.Thread(target=lambda: found.append(read())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(entry == found[0] for entry in found)
    assert len(set(found[0].values())) == len(found[0])
    files = list((tmp_path / "state").iterdir())
    assert [file.name for file in files] == ["secrets.json"]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


def test_sandbox_accounts_have_secrets_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYONCE_SANDBOX_SECRETS", json.dumps({"sandbox_a": "one", "sandbox_b": "two"}))
    channels = environment.sandbox_channels()
    assert {name: options["secret"] for name, options in channels.items()} == {"sandbox_a": "one", "sandbox_b": "two"}
    assert all(options["adapter"] == "sandbox" for options in channels.values())
