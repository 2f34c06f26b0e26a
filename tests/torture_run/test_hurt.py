"""Each fault truly does what it is called: a nemesis that only believes to hurt proves nothing."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from config.embedded import PrivatePostgres
from config.processes import wait_until
from config.redis_server import RedisServer, find_server
from torture.disk import Disk, small_disk
from torture.servers import RedisHurt, SqlHurt
from torture.site import compile_clock

SECONDS = 60
LONG = 2.0


@dataclass
class Place:
    """As much of a site as Redis needs."""

    redis: RedisServer

    def redis_admin(self) -> Any:
        return redis.Redis(unix_socket_path=str(self.redis.socket), socket_timeout=SECONDS)


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if find_server() is None:
        pytest.skip("no Redis here")
    server = RedisServer(tmp_path_factory.mktemp("r", numbered=True))
    server.start()
    yield Place(server)
    server.stop()


@pytest.fixture
def hurt(place: Place) -> RedisHurt:
    return RedisHurt(place)  # type: ignore[arg-type]


def meanwhile(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def refuses(place: Place, error: type[Exception]) -> bool:
    try:
        with place.redis_admin() as client:
            client.set("x", "1")
    except error:
        return True
    return False


def test_out_of_memory_refuses_writes_and_ends(place: Place, hurt: RedisHurt) -> None:
    thread = meanwhile(lambda: hurt.out_of_memory(LONG))
    assert wait_until(lambda: refuses(place, redis.exceptions.OutOfMemoryError), SECONDS)
    thread.join(SECONDS)
    assert not refuses(place, redis.RedisError)


def test_read_only_refuses_writes_and_ends(place: Place, hurt: RedisHurt) -> None:
    thread = meanwhile(lambda: hurt.read_only(LONG))
    assert wait_until(lambda: refuses(place, redis.exceptions.ReadOnlyError), SECONDS)
    thread.join(SECONDS)
    assert not refuses(place, redis.RedisError)


def test_a_killed_redis_comes_back_empty(place: Place, hurt: RedisHurt) -> None:
    place.redis_admin().set("x", "1")
    before = place.redis.pid()
    hurt.kill(0.0)
    assert place.redis.pid() not in (None, before)
    assert place.redis_admin().get("x") is None


def test_a_stopped_redis_answers_late(place: Place, hurt: RedisHurt) -> None:
    began = time.monotonic()
    thread = meanwhile(lambda: hurt.pause(LONG))
    pid = place.redis.pid()
    assert wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", SECONDS)
    assert place.redis_admin().ping()
    assert time.monotonic() - began >= LONG
    thread.join(SECONDS)


def test_poison_changes_what_is_cached(place: Place, hurt: RedisHurt) -> None:
    client = place.redis_admin()
    for number in range(30):
        client.set(f"payonce:order:{number}", f"1:signature:{number}")
    assert hurt.poison(1.0) == 30
    right = sum(client.get(f"payonce:order:{number}") == f"1:signature:{number}".encode() for number in range(30))
    assert right == 0


def test_what_was_cached_comes_back_with_the_life_it_had_left(place: Place, hurt: RedisHurt) -> None:
    client = place.redis_admin()
    client.set("payonce:order:1", "1:s:old", px=20_000)
    client.set("payonce:order:2", "1:s:gone", px=1_000)
    thread = meanwhile(lambda: hurt.bring_back(LONG))
    assert wait_until(lambda: client.get("payonce:order:2") is None, SECONDS)
    client.set("payonce:order:1", "2::")
    thread.join(SECONDS)
    assert client.get("payonce:order:1") == b"1:s:old"
    assert 0 < client.pttl("payonce:order:1") <= 18_000
    assert client.get("payonce:order:2") is None


def test_locks_vanish_while_they_are_held(place: Place, hurt: RedisHurt) -> None:
    client = place.redis_admin()
    thread = meanwhile(lambda: hurt.lose_locks(LONG))
    client.set("payonce:gate:1", "token")
    assert wait_until(lambda: client.get("payonce:gate:1") is None, SECONDS)
    thread.join(SECONDS)


def test_the_queue_is_flooded_with_what_was_in_it(place: Place, hurt: RedisHurt) -> None:
    client = place.redis_admin()
    client.lpush("payonce", b"task")
    hurt.flood_queue(40)
    assert client.lrange("payonce", 0, -1) == [b"task"] * 41


def test_a_crowd_takes_every_connection(private: PrivatePostgres) -> None:
    thread = meanwhile(lambda: SqlHurt(private.url).crowd(LONG))

    def is_full() -> bool:
        try:
            psycopg.connect(private.url).close()
        except psycopg.OperationalError:
            return True
        return False

    assert wait_until(is_full, SECONDS)
    thread.join(SECONDS)
    assert wait_until(lambda: not is_full(), SECONDS)


def test_sessions_are_ended(private: PrivatePostgres) -> None:
    connection = psycopg.connect(private.url, autocommit=True)
    assert SqlHurt(private.url).terminate(1.1) >= 1
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk") as mounted:
        if mounted is None:
            pytest.skip("only root may mount a small disk")
        yield mounted


def test_a_full_disk_has_no_room_until_it_is_freed(disk: Disk) -> None:
    file = disk.folder / "table"
    file.write_bytes(b"x" * 100_000)
    disk.fill()
    with pytest.raises(OSError, match="No space left") as refused, file.open("ab", buffering=0) as opened:
        for _ in range(100):
            opened.write(b"x" * 100_000)
    assert refused.value.errno == errno.ENOSPC
    disk.free()
    (disk.folder / "other").write_bytes(b"x" * 1_000_000)


def test_a_wrong_clock_is_wrong_and_its_monotonic_one_right(tmp_path: Path) -> None:
    library, told = compile_clock(tmp_path / "clock.so"), tmp_path / "clock"
    if library is None:
        pytest.skip("no C compiler here")
    told.write_text("-3600\n")
    code = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp(), time.monotonic()); time.sleep(0.01)"
    environment = {**os.environ, "LD_PRELOAD": str(library), "TORTURE_CLOCK_FILE": str(told)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    wrong, also_wrong, monotonic = (float(text) for text in done.stdout.split())
    assert time.time() - wrong == pytest.approx(3_600, abs=SECONDS)
    assert also_wrong == pytest.approx(wrong, abs=1)
    assert time.monotonic() - monotonic == pytest.approx(0, abs=SECONDS)
