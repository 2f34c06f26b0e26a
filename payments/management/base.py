"""What payonce's short commands share: a database that does not answer is exit status 4 and one line, no traceback."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError

EXIT_USAGE = 2
EXIT_UNAVAILABLE = 4


class DatabaseCommand(BaseCommand):
    """A command that is nothing without its database."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run it. Exit status 2 for wrong usage, 4 when the database is away."""
        try:
            return super().execute(*args, **options)
        except (OperationalError, InterfaceError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CommandError(f"the database does not answer: {first}", returncode=EXIT_UNAVAILABLE) from error
