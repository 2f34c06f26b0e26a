"""The wheel: plain files, complete, and at home in a shop that has apps named `orders` and `payments` of its own."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from config import embedded, environment
from config.postgres import free_port
from config.processes import wait_until
from config.services import answers_http

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]
CHECKOUT = Path(__file__).resolve().parents[2]
PROJECT = Path(__file__).with_name("project")
PINS = "dev.txt" if sys.version_info < (3, 12) else "dev-py312.txt"


def run(*command: str | Path, cwd: Path = CHECKOUT, env: dict[str, str] | None = None) -> str:
    """Run a command and return what it printed; a failure shows everything."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    target = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", target, CHECKOUT)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the wheel, Django Channels and django-payments, and nothing of this checkout."""
    place = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", place)
    installed = place / "bin" / "python"
    packages = [f"django-payonce[server] @ {wheel.as_uri()}", "channels", "django-payments"]
    pip = [installed, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, "--constraint", CHECKOUT / "requirements" / PINS, *packages)
    return installed


class Project:
    """One shop: its folder, its database, and the Python it runs on."""

    def __init__(self, python: Path, folder: Path, database_url: str, *, django_payments: bool) -> None:
        self.python, self.folder = python, folder
        shutil.copytree(PROJECT, folder)
        if django_payments:
            shutil.rmtree(folder / "payments")
        self.sandbox_port = free_port()
        self.bank = folder.with_name("bank")
        self.environment = {
            "PATH": os.environ["PATH"],
            "SECRET_KEY": secrets.token_urlsafe(40),
            "SHOP_DATABASE": json.dumps(environment.parse_database_url(database_url)),
            "SHOP_SANDBOX_SECRET": secrets.token_urlsafe(40),
            "SHOP_SANDBOX_URL": f"http://127.0.0.1:{self.sandbox_port}",
            "SHOP_SANDBOX_FOLDER": str(self.bank),
            "SHOP_DJANGO_PAYMENTS": "1" if django_payments else "",
        }

    def manage(self, *arguments: str) -> str:
        """Run a management command with warnings as errors where they are ours."""
        return run(self.python, "manage.py", *arguments, cwd=self.folder, env=self.environment)


@pytest.fixture(params=[False, True], ids=["own-payments-app", "django-payments"])
def project(
    request: pytest.FixtureRequest, python: Path, embedded_servers: embedded.Servers, tmp_path: Path
) -> Iterator[Project]:
    """A migrated shop on a database of its own."""
    name = f"shop_{secrets.token_hex(4)}"
    with psycopg.connect(embedded_servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        url = environment.with_database(embedded_servers.database_url, name)
        shop = Project(python, tmp_path / "shop", url, django_payments=request.param)
        shop.manage("migrate", "--run-syncdb", "--verbosity", "0")
        yield shop
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_wheel_holds_plain_files_and_everything_that_is_needed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
    assert not any((entry.external_attr >> 16) & 0o170000 == 0o120000 for entry in entries), "a link"
    names = {entry.filename for entry in entries}
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"payonce"}
    assert "payonce/py.typed" in names
    packaged = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "orders", "payments", "channels")
    wanted = {f"payonce/{name}" for name in packaged.splitlines() if not (CHECKOUT / name).is_symlink()}
    templates = {
        f"payonce/payments/templates/{path.relative_to(CHECKOUT / 'templates')}"
        for path in (CHECKOUT / "templates").rglob("*")
        if path.is_file()
    }
    assert sorted((wanted | templates) - names) == []


def test_shop_with_apps_of_the_same_names_has_no_clash(project: Project) -> None:
    project.manage("check")
    project.manage("makemigrations", "--check", "--dry-run", "payonce_orders", "payonce_payments")
    shown = project.manage(
        "shell",
        "-c",
        "from django.apps import apps; from django.conf import settings; import payments, payonce.payments\n"
        "print(sorted(c.label for c in apps.get_app_configs()), payments.__file__ != payonce.payments.__file__)",
    )
    for label in ("'orders'", "'payments'", "'payonce_orders'", "'payonce_payments'", "True"):
        assert label in shown


def test_shop_pays_an_order(project: Project, tmp_path: Path) -> None:
    command = ["manage.py", "payonce_sandbox", "--port", str(project.sandbox_port), "--data", str(project.bank)]
    log_path = tmp_path / "bank.log"
    with log_path.open("wb") as log:
        bank = subprocess.Popen(
            [str(project.python), *command], cwd=project.folder, env=project.environment, stdout=log, stderr=log
        )
    try:
        url = project.environment["SHOP_SANDBOX_URL"]
        assert wait_until(lambda: answers_http(url, any_status=True) or bank.poll() is not None, 30)
        assert bank.poll() is None, log_path.read_text()
        assert "paid once" in project.manage("buy_a_book")
    finally:
        bank.terminate()
        bank.wait(20)
