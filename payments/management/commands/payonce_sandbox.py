"""Start the sandbox bank: `python manage.py payonce_sandbox`."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from payonce.channels.errors import ChannelConfigError
from payonce.orders.conf import get_settings

DATA_FOLDER = "payonce-sandbox"
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 4


class Command(BaseCommand):
    """A thin shell around `payonce.channels.sandbox.server`. It needs no database."""

    help = "Serve the sandbox bank on 127.0.0.1 for every account whose adapter is sandbox."
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Say where to serve and where the ledger lives."""
        parser.add_argument("--port", type=int, default=8801, help="port on 127.0.0.1 (default: %(default)s)")
        parser.add_argument("--data", type=Path, default=Path(DATA_FOLDER),
                            help="folder of the bank's ledger and control token (default: %(default)s)")  # fmt: skip
        parser.add_argument("--speed", type=float, default=1.0, help="divides the gaps between repeated notifications")
        parser.add_argument(
            "--synchronous",
            choices=("FULL", "NORMAL", "OFF"),
            default="FULL",
            help="FULL survives a power cut, NORMAL the death of the process",
        )
        parser.add_argument("--accounts", type=Path, metavar="FILE",
                            help="further accounts as JSON, with the bank's half of a real channel's keys")  # fmt: skip
        parser.add_argument("--json", action="store_true", help="print one JSON object beside the READY line")

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until SIGINT or SIGTERM. Exit status 2 for wrong usage, 4 when the port or the folder is taken."""
        try:
            from payonce.channels.sandbox.server import SandboxServer, ServerOptions, run_forever
        except ImportError as error:
            raise CommandError(str(error), returncode=EXIT_UNAVAILABLE) from error

        def ready(server: SandboxServer) -> None:
            if options["json"]:
                told = {"url": server.url, "accounts": sorted(accounts), "data": str(options["data"])}
                self.stdout.write(json.dumps(told))
            self.stdout.write(f"READY sandbox {server.url}")
            self.stdout.flush()

        accounts = {**_sandbox_accounts(), **_further_accounts(options["accounts"])}
        if not 0 < options["port"] < 65_536 or options["speed"] <= 0:
            raise CommandError("--port must be from 1 to 65535 and --speed above 0", returncode=EXIT_USAGE)
        given = ServerOptions(accounts, options["data"], options["port"], options["synchronous"], options["speed"])
        try:
            run_forever(given, ready)
        except (OSError, RuntimeError, ChannelConfigError) as error:
            raise CommandError(f"the sandbox cannot serve: {error}", returncode=EXIT_UNAVAILABLE) from error


def _further_accounts(path: Path | None) -> dict[str, dict[str, Any]]:
    """The accounts of a file. Raises CommandError where it cannot be read."""
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CommandError(f"--accounts {path} cannot be read: {error}", returncode=EXIT_USAGE) from error
    if not isinstance(found, dict) or not all(isinstance(options, dict) for options in found.values()):
        raise CommandError(f"--accounts {path} must hold an object of accounts", returncode=EXIT_USAGE)
    return found


def _sandbox_accounts() -> dict[str, dict[str, Any]]:
    """The accounts that this bank serves. Raises CommandError when there are none."""
    configured = get_settings().CHANNELS
    accounts = {name: dict(given) for name, given in configured.items() if given.get("adapter") == "sandbox"}
    if not accounts:
        raise CommandError(
            'no account in PAYONCE["CHANNELS"] has "adapter": "sandbox": the bank would have nobody to serve',
            returncode=EXIT_USAGE,
        )
    return accounts
