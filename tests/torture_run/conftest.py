"""A durable PostgreSQL of these tests alone, and the proxy as its own process in front of it."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from config.embedded import PrivatePostgres, private_postgres
from config.postgres import free_port
from config.processes import wait_until
from torture.proxy import ProxyControl

SECONDS = 60


@dataclass
class Proxied:
    """PostgreSQL, directly and through the proxy."""

    direct_url: str
    url: str
    control: ProxyControl

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.url, connect_timeout=SECONDS)

    def rows(self) -> list[object]:
        with psycopg.connect(self.direct_url, autocommit=True) as connection:
            return [row[0] for row in connection.execute("SELECT name FROM thing ORDER BY name")]

    def count(self, name: str) -> int:
        return self.control.send("stats").get(name, 0)


@pytest.fixture(scope="module")
def private() -> Iterator[PrivatePostgres]:
    with private_postgres("test") as server:
        yield server


@pytest.fixture
def proxied(private: PrivatePostgres, tmp_path: Path) -> Iterator[Proxied]:
    with psycopg.connect(private.url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS thing")
        connection.execute("CREATE TABLE thing (name text PRIMARY KEY)")
    listen, upstream, control = free_port(), private.cluster.listen.port, tmp_path / "proxy.sock"
    command = [sys.executable, "-m", "torture.proxy", "--listen", str(listen), "--upstream", str(upstream)]
    process = subprocess.Popen([*command, "--control", str(control)], stdin=subprocess.DEVNULL)
    try:
        assert wait_until(control.exists, SECONDS)
        url = private.url.replace(f":{upstream}/", f":{listen}/")
        yield Proxied(private.url, url, ProxyControl(control))
    finally:
        process.terminate()
        process.wait(SECONDS)
