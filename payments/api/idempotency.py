"""Idempotency-Key: binds a caller's key to the stream or refund number that it made, never to a stored answer.

Insert first: the unique constraint decides which of two calls is the one, never a look-up. A call whose process died is
taken over after its lease, and finds what it had made. Times are the database's.
"""

import hashlib
import json
import string
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from payonce.orders.conf import get_settings
from payonce.payments import flight
from payonce.payments.api.problems import Problem
from payonce.payments.flight import Statement
from payonce.payments.locks import Work

KEY_LENGTH_MAX = 255
CALLER_LENGTH_MAX = 80
LEASE_SECONDS = 40
"""Above what one pay can take: waiting for a turn, proving an older stream closed, and two calls to a channel."""
PRINTABLE = frozenset(string.ascii_letters + string.digits + string.punctuation)
_TAKE = """
INSERT INTO payonce_idempotency (caller, route, key, body_hash, made, lease_until, created_at)
VALUES (%s, %s, %s, %s, '', payonce_now() + %s * interval '1 second', payonce_now())
ON CONFLICT (caller, route, key) DO UPDATE SET lease_until = payonce_now() + %s * interval '1 second'
    WHERE payonce_idempotency.made = '' AND payonce_idempotency.lease_until <= payonce_now()
      AND payonce_idempotency.body_hash = excluded.body_hash
RETURNING id, created_at, lease_until, (xmax <> 0)
"""
_READ = """
SELECT body_hash, made, greatest(1, ceil(extract(epoch FROM lease_until - payonce_now())))::int
FROM payonce_idempotency WHERE caller = %s AND route = %s AND key = %s
"""


class KeyState(StrEnum):
    """What a key means for this call."""

    FRESH = "fresh"  # ours to carry out
    TAKEN_OVER = "taken_over"  # ours; an earlier call died, and may have made something
    REPEAT = "repeat"  # `made` is the number it made: answer with its present state


@dataclass(frozen=True, slots=True)
class Key:
    """A key held by this call, or the number that it made before."""

    state: KeyState
    id: int = 0
    made: str = ""
    created_at: Any = None
    lease_until: Any = None

    def bind(self, number: str) -> None:
        """Remember what was made, unless another call took this key over meanwhile and was first."""
        _fly(Statement("UPDATE payonce_idempotency SET made = %s WHERE id = %s AND made = ''", [number, self.id]))

    def let_go(self) -> None:
        """Nothing was made: the same key may try again."""
        _fly(
            Statement(
                "DELETE FROM payonce_idempotency WHERE id = %s AND made = '' AND lease_until = %s",
                [self.id, self.lease_until],
            )
        )

    def bind_under_lock(self, work: Work, number: str) -> str:
        """Inside a step's transaction: bind `number`, or with an empty one tell what the key made already.

        Both calls that hold the key (one was paused past its lease) come by the same lock one after the other, so the
        second sees what the first has made, and what is made is bound by the same commit.
        """
        if number:
            work.raw.append(Statement("UPDATE payonce_idempotency SET made = %s WHERE id = %s", [number, self.id]))
            return number
        rows = flight.fly([Statement("SELECT made FROM payonce_idempotency WHERE id = %s", [self.id])], work.using)[0]
        return str(rows[0][0]) if rows else ""


def read_key(header: str | None) -> str:
    """The key in the header, quoted as the IETF draft has it or bare; empty without one. Raises Problem (400)."""
    if header is None:
        return ""
    text = header.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if not text or len(text) > KEY_LENGTH_MAX or not PRINTABLE.issuperset(text):
        raise Problem(
            400, "idempotency_key_invalid", f"Idempotency-Key must be 1 to {KEY_LENGTH_MAX} printable ASCII characters."
        )
    return text


def take_key(caller: str, route: str, key: str, target: str, body: dict[str, Any]) -> Key:
    """Hold the key for one call about `target` with this body. Raises Problem: 422 for another body, 409 while one runs."""
    if len(caller) > CALLER_LENGTH_MAX:  # a user name may have 150 characters
        caller = hashlib.sha256(caller.encode()).hexdigest()
    body_hash = _hash(target, body)
    found = _fly(Statement(_TAKE, [caller, route, key, body_hash, LEASE_SECONDS, LEASE_SECONDS]))
    if found:
        key_id, created_at, lease_until, is_old = found[0]
        return Key(KeyState.TAKEN_OVER if is_old else KeyState.FRESH, key_id, "", created_at, lease_until)
    rows = _fly(Statement(_READ, [caller, route, key]))
    if not rows:  # let go between the two statements
        raise _running(1)
    known_hash, made, seconds = rows[0]
    if known_hash != body_hash:
        raise Problem(
            422, "idempotency_key_reused", "This Idempotency-Key was used for another request. Use a new key."
        )
    if not made:
        raise _running(seconds)
    return Key(KeyState.REPEAT, made=made)


def _running(seconds: int) -> Problem:
    return Problem(
        409, "idempotency_key_running", "The first request with this Idempotency-Key is still being worked on.", seconds
    )


def _hash(target: str, body: dict[str, Any]) -> str:
    text = json.dumps([target, body], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _fly(statement: Statement) -> list[flight.Row]:
    return flight.fly([statement], get_settings().DATABASE)[0]
