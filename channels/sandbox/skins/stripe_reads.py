"""What can be fetched from the bank in Stripe's words: one object by its id, and lists, newest first, with cursors."""

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from payonce.channels.sandbox import outbox
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.faults import Disturbance
from payonce.channels.sandbox.notes import find_note, find_notes
from payonce.channels.sandbox.outbox import STATED
from payonce.channels.sandbox.records import find_payment, find_refund, refunds_of, row_dict
from payonce.channels.sandbox.skins import stripe_objects as objects
from payonce.channels.sandbox.skins.stripe_objects import Record, Seen, Taken
from payonce.channels.sandbox.skins.stripe_params import ApiError, Params, within

LIMIT_DEFAULT, LIMIT_MAX = 10, 100
_OF_SESSION = frozenset({"payment_intent", "payment_intent.latest_charge"})
_OF_INTENT = frozenset({"latest_charge"})
_KINDS = {"cs": "checkout.session", "pi": "payment_intent", "ch": "charge", "re": "refund", "evt": "event"}
_PARAMS = {"cs": "session", "pi": "intent", "ch": "charge", "re": "refund", "evt": "id"}


class Call(Protocol):
    """The part of a request by which its payment is found."""

    @property
    def id(self) -> str:
        """The id in the path."""

    @property
    def params(self) -> Params:
        """The parameters."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One request inside the bank's transaction: `at` is Unix seconds, `token` makes new ids."""

    database: sqlite3.Connection
    account: SandboxAccount
    params: Params
    id: str
    at: float
    faults: Disturbance
    token: str

    def stated(self, number: str) -> Record:
        """What the merchant stated of a payment."""
        note = find_note(self.database, self.account.name, STATED, number)
        if note is None:
            raise missing(self.id)
        found: Record = note.value
        return found

    def seen(self, number: str) -> tuple[Record, Seen]:
        """What was stated of a payment, and how it is now."""
        payment = find_payment(self.database, self.account.name, number)
        if payment is None:
            raise missing(self.id)
        url = f"{self.account.base_url}/wallet/pay/{payment.token}"
        return self.stated(number), objects.seen(payment, self.at, url)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `original` is the id of the request whose stored answer it is. `is_kept` where a key may store it."""

    status: int
    body: Record
    original: str = ""
    is_kept: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """What an id stands for: a payment's number, which of its captures, and the refund's number."""

    number: str
    position: int = 0
    refund: str = ""


def missing(identifier: str, status: int = 404) -> ApiError:
    """The error for an id that the account does not have."""
    prefix = identifier.partition("_")[0]
    return ApiError(
        status, f"No such {_KINDS.get(prefix, 'object')}: '{identifier[:60]}'", "resource_missing",
        _PARAMS.get(prefix, "id"),
    )  # fmt: skip


def locate(database: sqlite3.Connection, account: str, identifier: str) -> Place | None:
    """The payment that an id of a session, intent, charge or refund belongs to."""
    note = find_note(database, account, "id", identifier)
    if note is not None:
        return Place(note.value)
    prefix, _, rest = identifier.partition("_")
    if prefix in {"pi", "ch"}:
        query = (
            "SELECT payment.number FROM capture JOIN payment ON payment.id = capture.payment_id"
            " WHERE payment.account = ? AND capture.reference = ?"
        )
        row = database.execute(query, (account, "cap_" + rest)).fetchone()
        payment = find_payment(database, account, row["number"]) if row else None
        if payment is None:
            return None
        places = [place for place, taken in enumerate(payment.captures) if taken.reference == "cap_" + rest]
        # The first capture's intent has the id that was given out at the beginning, and answers to no other.
        return None if prefix == "pi" and places[0] == 0 else Place(payment.number, places[0])
    query = (
        "SELECT payment.number, refund.number AS refund FROM refund JOIN payment ON payment.id = refund.payment_id"
        " WHERE payment.account = ? AND refund.reference = ?"
    )
    row = database.execute(query, (account, "ref_" + rest)).fetchone() if prefix == "re" else None
    return None if row is None else Place(row["number"], refund=row["refund"])


def number_of_path(database: sqlite3.Connection, account: str, call: Call) -> str:
    """The payment's number of the id in the path."""
    place = locate(database, account, call.id)
    return place.number if place else ""


def number_of_filter(database: sqlite3.Connection, account: str, call: Call) -> str:
    """The payment's number of a list's filter."""
    identifier = call.params.text("payment_intent") or call.params.text("charge")
    place = locate(database, account, identifier) if identifier else None
    return place.number if place else ""


def get_session(scene: Scene) -> Record:
    """One Checkout Session."""
    stated, of = scene.seen(_placed(scene, "cs").number)
    return objects.session(stated, of, _expand(scene.params, _OF_SESSION))


def get_intent(scene: Scene) -> Record:
    """One PaymentIntent."""
    place = _placed(scene, "pi")
    stated, of = scene.seen(place.number)
    if not _has_intent(stated, of):
        raise missing(scene.id)
    return objects.intent(stated, of, place.position, _expand(scene.params, _OF_INTENT))


def get_charge(scene: Scene) -> Record:
    """One charge."""
    place = _placed(scene, "ch")
    stated, of = scene.seen(place.number)
    return objects.charge(stated, of.captures[place.position])


def get_refund(scene: Scene) -> Record:
    """One refund."""
    place = _placed(scene, "re")
    found = [row for row in _refunds(scene, place.number) if row["id"] == scene.id]
    if not found:
        raise missing(scene.id)
    return found[0]


def list_sessions(scene: Scene) -> Record:
    """Sessions by the time of their making. Only those of the page are looked at more closely."""
    expand = _expand(scene.params, _OF_SESSION, "data.")
    status, of_intent = scene.params.text("status"), scene.params.text("payment_intent")
    rows = [
        stated
        for stated in _stated(scene)
        if stated["object"] == "checkout.session" and within(scene.params, stated["created_at"])
        and of_intent in {"", stated["intent"]}
    ]  # fmt: skip
    if status:
        rows = [row for row in rows if objects.session(*scene.seen(row["number"]))["status"] == status]
    listed = _page(scene.params, rows, "/v1/checkout/sessions")
    return {**listed, "data": [objects.session(*scene.seen(row["number"]), expand) for row in listed["data"]]}


def list_intents(scene: Scene) -> Record:
    """PaymentIntents, those that Checkout made among them."""
    expand = _expand(scene.params, _OF_INTENT, "data.")
    rows = [
        objects.intent(stated, of, position, expand)
        for stated, of in _payments(scene)
        if within(scene.params, stated["created_at"]) and _has_intent(stated, of)
        for position in range(max(1, len(of.captures)))
    ]
    return _page(scene.params, rows, "/v1/payment_intents")


def list_refunds(scene: Scene) -> Record:
    """Refunds of one payment, or of all."""
    wanted = scene.params.text("payment_intent") or scene.params.text("charge")
    place = locate(scene.database, scene.account.name, wanted) if wanted else None
    if wanted and place is None:
        raise missing(wanted, 400)
    numbers = [place.number] if place else [stated["number"] for stated, _ in _payments(scene)]
    rows = [row for number in numbers for row in _refunds(scene, number)]
    rows = [row for row in rows if wanted in {"", row["payment_intent"], row["charge"]}]
    return _page(scene.params, [row for row in rows if within(scene.params, row["created"])], "/v1/refunds")


def list_disputes(scene: Scene) -> Record:
    """What payers' banks took back."""
    wanted = scene.params.text("payment_intent") or scene.params.text("charge")
    rows = [
        row
        for stated, of in _payments(scene)
        for taken in of.captures
        for row in objects.disputes(stated, taken)
        if wanted in {"", row["payment_intent"], row["charge"]} and within(scene.params, row["created"])
    ]
    return _page(scene.params, rows, "/v1/disputes")


def list_events(scene: Scene) -> Record:
    """Everything that was told, or should have been."""
    kind = scene.params.text("type")
    rows = [row for row in _events(scene) if kind in {"", row["type"]} and within(scene.params, row["created"])]
    return _page(scene.params, rows, "/v1/events")


def get_event(scene: Scene) -> Record:
    """One event."""
    found = [row for row in _events(scene) if row["id"] == scene.id]
    if not found:
        raise missing(scene.id)
    return found[0]


def list_balance(scene: Scene) -> Record:
    """Balance transactions, from the journal; the planned faults leave out or invent a line."""
    is_whole = bool(_expand(scene.params, frozenset({"source"}), "data."))
    query = "SELECT * FROM journal WHERE account = ? ORDER BY id DESC"
    rows = [
        {**row, "id": objects.transaction_id(row)}
        for row in map(row_dict, scene.database.execute(query, (scene.account.name,)))
        if within(scene.params, row["at"]) and scene.params.text("type") in {"", objects.kind_of_movement(row)}
    ]
    if left_out := scene.faults.get("omit"):
        rows = [row for row in rows if left_out.arguments.get("name") not in {row["number"], row["refund_number"]}]
    listed = _page(scene.params, rows, "/v1/balance_transactions")
    data = [objects.balance_transaction(row, _source(scene, row)) for row in listed["data"]]
    if invented := scene.faults.get("invent"):
        data.insert(0, _invented(scene, invented.arguments))
    if not is_whole:
        data = [{**row, "source": row["source"]["id"]} for row in data]
    return {**listed, "data": data}


def _invented(scene: Scene, arguments: dict[str, Any]) -> Record:
    amount, number = int(arguments.get("amount_minor", 100)), str(arguments.get("name", "invented"))
    currency = str(arguments.get("currency", "CNY"))
    taken = Taken("cap_" + scene.token, 0, amount, currency, scene.at)
    stated = {"intent": "pi_" + scene.token, "description": "", "intent_metadata": {"payonce_number": number}}
    row = {"id": "txn_invented", "at": scene.at, "kind": "capture", "amount_minor": amount, "currency": currency}
    return objects.balance_transaction(row, objects.charge(stated, taken))


def _source(scene: Scene, row: Record) -> Record:
    stated, of = scene.seen(row["number"])
    taken = next(taken for taken in of.captures if taken.reference == row["reference"])
    if row["kind"] in {"dispute", "reversal"}:
        return objects.disputes(stated, taken)[0]
    payment = find_payment(scene.database, scene.account.name, row["number"])
    known = find_refund(scene.database, payment.id, row["refund_number"]) if payment and row["refund_number"] else None
    if payment is None or known is None:
        return objects.charge(stated, taken)
    content = outbox.refund_content(payment, known)
    return objects.refund(stated, content, objects.charge_id(taken), objects.intent_id(stated, taken))


def _refunds(scene: Scene, number: str) -> list[Record]:
    payment = find_payment(scene.database, scene.account.name, number)
    if payment is None:
        return []
    stated = scene.stated(number)
    rows = [
        (
            row.id,
            objects.refund(
                stated, outbox.refund_content(payment, row), objects.charge_id(taken), objects.intent_id(stated, taken)
            ),
        )
        for taken, capture in zip(objects.seen(payment, scene.at, "").captures, payment.captures, strict=True)
        for row in refunds_of(scene.database, capture.id)
    ]
    return [shown for _, shown in sorted(rows, key=lambda pair: pair[0], reverse=True)]


def _stated(scene: Scene) -> list[Record]:
    """What was stated of all payments of the account, the newest first."""
    notes = find_notes(scene.database, scene.account.name, STATED)
    return sorted((note.value for note in notes), key=lambda stated: -float(stated["created_at"]))


def _payments(scene: Scene) -> list[tuple[Record, Seen]]:
    """All payments of the account, the newest first."""
    return [scene.seen(stated["number"]) for stated in _stated(scene)]


def _events(scene: Scene) -> list[Record]:
    messages = outbox.find(scene.database, scene.account.name)
    return [objects.event(message) for message in reversed(messages) if message.read().get("stated")]


def _has_intent(stated: Record, of: Seen) -> bool:
    """Checkout makes its intent only when the buyer acts."""
    return stated["object"] == "payment_intent" or of.state in {"IN_PROGRESS", "PAID"} or of.declined_count > 0


def _placed(scene: Scene, prefix: str) -> Place:
    place = locate(scene.database, scene.account.name, scene.id) if scene.id.startswith(prefix + "_") else None
    if place is None:
        raise missing(scene.id)
    return place


def _expand(params: Params, known: Collection[str], below: str = "") -> list[str]:
    for path in params.expand:
        if not path.startswith(below) or path[len(below) :] not in known:
            raise ApiError(400, f"This property cannot be expanded ({path[:60]}).", param="expand")
    return [path[len(below) :] for path in params.expand]


def _page(params: Params, rows: list[Record], url: str) -> Record:
    limit = params.integer("limit", 1, LIMIT_MAX) or LIMIT_DEFAULT
    after, before = params.text("starting_after"), params.text("ending_before")
    ids = [row["id"] for row in rows]
    for cursor in (after, before):
        if cursor and cursor not in ids:
            raise missing(cursor, 400)
    if after:
        rows = rows[ids.index(after) + 1 :]
    elif before:
        rows = rows[: ids.index(before)]
        return {"object": "list", "data": rows[-limit:], "has_more": len(rows) > limit, "url": url}
    return {"object": "list", "data": rows[:limit], "has_more": len(rows) > limit, "url": url}
