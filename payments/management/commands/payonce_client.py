"""Create or revoke a shop's access to the API. The token is printed once; only its hash is kept."""

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import IntegrityError
from django.utils import timezone

from payonce.orders.conf import get_settings
from payonce.payments import tokens
from payonce.payments.management.base import EXIT_USAGE, DatabaseCommand
from payonce.payments.models import ApiClient


class Command(DatabaseCommand):
    """`payonce_client create NAME --source SOURCE`, `payonce_client revoke NAME`."""

    help = "Create or revoke a shop's access to the API."

    def add_arguments(self, parser: CommandParser) -> None:
        """One action, the client's name, and the source that it is bound to."""
        parser.add_argument("action", choices=["create", "revoke"])
        parser.add_argument("name", help="What you call this client, for example the shop's name")
        parser.add_argument("--source", default="shop", help="The only source whose orders it may see (default: shop)")
        parser.add_argument("--json", action="store_true", help="Print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it and say what came of it."""
        answer = self._create(**options) if options["action"] == "create" else self._revoke(**options)
        if options["json"]:
            self.stdout.write(json.dumps(answer))
            return
        for name, value in answer.items():
            self.stdout.write(f"{name}: {value}")

    def _create(self, name: str, source: str, **options: Any) -> dict[str, str]:
        for what, text in (("name", name), ("source", source)):
            if not 0 < len(text) <= 64 or not text.isprintable():
                raise CommandError(f"The {what} must be 1 to 64 printable characters.", returncode=EXIT_USAGE)
        token = tokens.new_client_token()
        row = ApiClient(name=name, source=source, token_hash=tokens.hash_client_token(token), created_at=timezone.now())
        try:
            row.save(using=get_settings().DATABASE, force_insert=True)
        except IntegrityError as error:
            raise CommandError(
                f'There is a client "{name}" already. Choose another name, or revoke it first.', returncode=EXIT_USAGE
            ) from error
        return {"name": name, "source": source, "token": token}

    def _revoke(self, name: str, **options: Any) -> dict[str, str]:
        revoked = ApiClient.objects.using(get_settings().DATABASE).filter(name=name, is_active=True)
        if not revoked.update(is_active=False):
            raise CommandError(f'There is no active client "{name}".', returncode=EXIT_USAGE)
        return {"name": name, "revoked": "yes"}
