"""Servers of a torture run: a durable PostgreSQL and a Redis of its own, and one database and folder for each worker."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from config.embedded import private_postgres
from config.environment import with_database
from config.processes import ProcessError
from config.redis_server import RedisServer, find_server

CHECKOUT = Path(__file__).resolve().parent.parent
TEMPLATE = "torture_template"
CLOCK = """
CREATE TABLE payonce_test_clock (offset_seconds double precision NOT NULL);
CREATE OR REPLACE FUNCTION payonce_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT clock_timestamp() + COALESCE((SELECT sum(offset_seconds) FROM payonce_test_clock), 0) * interval ''1 second'''
"""


@dataclass(frozen=True)
class Site:
    """Where one worker works. Plain data: it is handed to another process."""

    database_url: str
    redis_url: str
    folder: Path

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to be the reference project on these servers."""
        return {
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "PAYONCE_SHOP_INBOX": str(self.inbox),
            "PAYONCE_PROFILE": "test",
            "SECRET_KEY": "a torture run signs nothing that anybody else trusts",
            "PAYONCE_SANDBOX_SECRETS": json.dumps({name: "unused " * 8 + name for name in ("sandbox_a", "sandbox_b")}),
            "LOG_LEVEL": "CRITICAL",
            "CONN_MAX_AGE": "600",
        }

    @property
    def inbox(self) -> Path:
        """What the shop was told, as JSON lines."""
        return self.folder / "inbox.jsonl"

    @property
    def history(self) -> Path:
        """What was asked of payonce and how it answered, as JSON lines."""
        return self.folder / "history.jsonl"

    @property
    def bank(self) -> Path:
        """The folder of the sandbox."""
        return self.folder / "bank"


@contextmanager
def sites(count: int) -> Iterator[list[Site]]:
    """So many workers' places on servers of this run alone, gone at the end. Raises ProcessError."""
    if find_server() is None:
        raise ProcessError("There is no redis-server and no valkey-server.")
    folder = Path(tempfile.mkdtemp(prefix="payonce-torture-"))
    redis = RedisServer(folder / "redis")
    try:
        with private_postgres("test") as postgres:
            redis.start()
            _make_template(postgres.url)
            yield [_make_site(postgres.url, redis.url(number), folder, number) for number in range(count)]
    finally:
        redis.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _make_template(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        # Its locks come and go by chance: a schedule, or a count of crossings, would not be the same twice.
        connection.execute("ALTER SYSTEM SET autovacuum = off")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
    template = with_database(url, TEMPLATE)
    site = Site(template, "", Path(tempfile.gettempdir()))
    made = subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity", "0"], cwd=CHECKOUT, capture_output=True, text=True,
        check=False, env={**os.environ, **site.environment()}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if made.returncode != 0:
        raise ProcessError(f"The database could not be made:\n{made.stderr[-2000:]}")
    with psycopg.connect(template, autocommit=True) as connection:
        connection.execute(CLOCK)


def _make_site(url: str, redis_url: str, folder: Path, number: int) -> Site:
    name = f"torture_{number}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    place = folder / name
    place.mkdir()
    return Site(with_database(url, name), redis_url, place)
