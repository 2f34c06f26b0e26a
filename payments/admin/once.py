"""A confirmation form counts once: the same POST again answers with what the first one made."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from payonce.orders.conf import get_settings
from payonce.payments import clock
from payonce.payments.models import IdempotencyRecord

LEASE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run a form, or what stands against it: it `made` something, is `running`, or had `other` values."""

    record: IdempotencyRecord
    why_not: str = ""


def claim(caller: str, route: str, token: str, values: Mapping[str, str]) -> Claim:
    """Take the form's token for this caller. Commits at once, so that a second POST sees it."""
    at = clock.read_now()
    body_hash = hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()
    until = at + timedelta(seconds=LEASE_SECONDS)
    rows = IdempotencyRecord.objects.using(get_settings().DATABASE)
    record, is_new = rows.get_or_create(
        caller=caller[:80], route=route[:120], key=token,
        defaults={"body_hash": body_hash, "lease_until": until, "created_at": at},
    )  # fmt: skip
    if is_new:
        return Claim(record)
    if record.body_hash != body_hash:
        return Claim(record, "other")
    if record.made:
        return Claim(record, "made")
    taken = rows.filter(pk=record.pk, made="", lease_until=record.lease_until, lease_until__lte=at)
    return Claim(record) if taken.update(lease_until=until) else Claim(record, "running")


def finish(record: IdempotencyRecord, made: str) -> None:
    """The form did its work."""
    record.made = made[:32]
    record.save(using=get_settings().DATABASE, update_fields=["made"])


def give_up(record: IdempotencyRecord) -> None:
    """The form did nothing: it may be sent again."""
    IdempotencyRecord.objects.using(get_settings().DATABASE).filter(pk=record.pk, made="").delete()
