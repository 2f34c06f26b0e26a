"""Environments of the judges, apart from ours: a virtual environment or a folder of Node packages each, kept between runs.

They are installed once under `.payonce/judges/` and made again when the list of packages changes.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / ".payonce" / "judges"
INSTALL_SECONDS = 600


def python(name: str, packages: Sequence[str]) -> Path:
    """The interpreter of a virtual environment with these packages (`name==version` each)."""

    def install(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages])

    return _folder(f"{name}-python", packages, install) / "bin" / "python"


def node(name: str, packages: Sequence[str]) -> Path:
    """A folder whose `node_modules` holds these packages (`name@version` each). Skips where there is no Node.js."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("no Node.js here")

    def install(folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true}')
        _run([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", *packages], folder)

    return _folder(f"{name}-node", packages, install)


def ask(command: Sequence[str], script: Path, *arguments: str, cwd: Path | None = None, seconds: float = 120) -> str:
    """Run a judge's script; what it prints. Fails with its output where it exits with another status than 0."""
    environment = {
        key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "DJANGO_SETTINGS_MODULE"}
    }
    done = subprocess.run(
        [*command, str(script), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=seconds,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{script.name} says no:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def _folder(name: str, packages: Sequence[str], install: Callable[[Path], None]) -> Path:
    """The folder of an environment, complete. One process installs, the others wait for it."""
    wanted = hashlib.sha256("\n".join([sys.version, *packages]).encode()).hexdigest()
    ROOT.mkdir(parents=True, exist_ok=True)
    folder, stamp = ROOT / name, ROOT / f"{name}.installed"
    with (ROOT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            install(folder)
            stamp.write_text(wanted)
    return folder


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        pytest.fail(f"a judge's environment cannot be installed: {' '.join(command)}\n{done.stdout}\n{done.stderr}")
