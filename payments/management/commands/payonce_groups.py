"""Create the ready groups of the console: Viewer, Support, Finance, Approver and Admin."""

import json
from typing import Any

from django.contrib.auth.models import Group, Permission
from django.core.management.base import CommandError, CommandParser
from django.db.models import Q

from payonce.payments.management.base import EXIT_USAGE, DatabaseCommand
from payonce.payments.permissions import GROUPS, VIEWED_MODELS, view_permission


class Command(DatabaseCommand):
    """Safe to run again: it adds what is missing to its own groups, and takes nothing away."""

    help = "Create the console's groups (Viewer, Support, Finance, Approver, Admin) with their permissions."

    def add_arguments(self, parser: CommandParser) -> None:
        """Let a shop that has such groups choose another name."""
        parser.add_argument("--prefix", default="payonce ", help='put before each name (default "payonce ")')
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        """Create each group and add its permissions."""
        seen = _find([view_permission(label) for label in VIEWED_MODELS])
        made = []
        for name, extra in GROUPS.items():
            group, is_new = Group.objects.get_or_create(name=options["prefix"] + name)
            group.permissions.add(*seen, *_find([permission.value for permission in extra]))
            made.append({"name": group.name, "created": is_new, "permissions": group.permissions.count()})
        if options["json"]:
            self.stdout.write(json.dumps({"groups": made}))
            return
        for one in made:
            said = "created" if one["created"] else "kept"
            self.stdout.write(f"{one['name']}: {said}, {one['permissions']} permissions")


def _find(names: list[str]) -> list[Permission]:
    wanted = Q(pk__in=[])
    for name in names:
        app_label, _, codename = name.partition(".")
        wanted |= Q(content_type__app_label=app_label, codename=codename)
    found = list(Permission.objects.filter(wanted))
    if len(found) != len(names):
        raise CommandError("Some permissions do not exist yet: run `manage.py migrate` first.", returncode=EXIT_USAGE)
    return found
