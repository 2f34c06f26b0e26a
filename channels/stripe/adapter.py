"""Stripe: Checkout Sessions (`web`, a redirect) and PaymentIntents (`card`, for the shop's own page), API v1 with a pinned version.

A stream's number stands in `client_reference_id` and in the metadata of session and PaymentIntent, a refund's number in the
metadata of the refund; the keys are functions of them. Nothing at Stripe makes them unique: within a day the key does, later only
our own list of what exists. Unsure without a live account: whether lists show everything that was just made (search does not).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import urlencode

from payonce.channels.base import Channel, Conversation
from payonce.channels.messages import (
    Acknowledgement,
    Capabilities,
    CloseAnswer,
    CloseState,
    HttpRequest,
    Known,
    NotAuthentic,
    Notice,
    NotificationRequest,
    Outcome,
    PaymentRef,
    PaymentState,
    PaymentView,
    Prepay,
    PrepayRequest,
    RefundRef,
    RefundRequest,
    RefundState,
    RefundView,
    Refused,
    RefusedKind,
    StatementLine,
    Unknown,
    Verdict,
)
from payonce.channels.options import Option
from payonce.channels.stripe import forms, objects
from payonce.channels.stripe.account import OPTION_SPECS, StripeAccount
from payonce.channels.stripe.events import read_event, verify
from payonce.channels.stripe.forms import CARD, WEB
from payonce.channels.stripe.objects import ApiError, MalformedError, Record
from payonce.channels.stripe.replies import Answer, Listed, Reply, is_missing, judge, read, refusal

PAGE, SEARCH_PAGES_MAX, STATEMENT_PAGES_MAX = 100, 8, 1_000
CLOCKS_APART = timedelta(minutes=5)
KEYS_PER_REFUND_MAX = 5
_SESSIONS, _INTENTS = "/v1/checkout/sessions", "/v1/payment_intents"
_CHARGE_OF = {WEB: "payment_intent.latest_charge", CARD: "latest_charge"}
_NO_SUCH_AMOUNT = "Stripe takes three-decimal amounts only in tens: round the price"
_CLOSE_OF_STATE = {
    PaymentState.PAID: CloseState.ALREADY_PAID,
    PaymentState.CLOSED: CloseState.CLOSED_PROVED,
    PaymentState.IN_PROGRESS: CloseState.IN_PROGRESS,
}


class StripeChannel(Channel):
    """One Stripe account."""

    adapter: ClassVar[str] = "stripe"
    option_specs: ClassVar[tuple[Option, ...]] = OPTION_SPECS

    def __init__(self, account: str, options: Mapping[str, Any]) -> None:
        super().__init__(account, options)
        self.settings = StripeAccount.from_options(account, options)

    @property
    def merchant(self) -> str:
        """The connected account, or that of the keys: events state which, answers do not."""
        return self.settings.merchant

    @property
    def takes_real_money(self) -> bool:
        """A test key takes test cards."""
        return self.settings.is_live

    @property
    def capabilities(self) -> Capabilities:
        """What this account can do."""
        return self.settings.capabilities

    def prepay(self, request: PrepayRequest) -> Conversation[Outcome[Prepay]]:
        """Make the session or intent. A repeat is answered from the key's store, then fetched to learn how it is now."""
        amount = forms.to_wire(request.amount_minor, request.currency)
        if request.method not in self.capabilities.methods or request.currency not in self.capabilities.currencies:
            return Refused(RefusedKind.CONFIG, "method_or_currency_unsupported")
        if amount is None:
            return Refused(RefusedKind.CONFIG, "amount_not_representable", _NO_SUCH_AMOUNT)
        is_web = request.method == WEB
        pairs = forms.session_form(request, amount) if is_web else forms.intent_form(request, amount)
        path = _SESSIONS if is_web else _INTENTS
        reply = yield from self._post(path, pairs, f"payonce:prepay:{request.number}")
        if isinstance(reply, Answer) and reply.is_replayed:
            identifier = read(reply, lambda record: objects.identifier(record, "cs_" if is_web else "pi_"))
            if isinstance(identifier, Unknown):
                return identifier
            reply = yield from self._get(f"{path}/{identifier.value}")
        if not isinstance(reply, Answer):
            return refusal("prepay", reply)
        found = read(reply, lambda record: _prepay(record, request))
        if isinstance(found, Known) and isinstance(found.value, str):
            return Refused(RefusedKind.CONFLICT, f"status_{found.value}", "it can no longer be paid", reply.raw)
        return found  # type: ignore[return-value] # a status was told apart above

    def query(self, ref: PaymentRef) -> Conversation[Outcome[PaymentView]]:
        """Fetch it by its id, or find it by its number among what was made since the first call."""
        reply = yield from self._find(ref)
        if reply is None:
            return Known(PaymentView(ref.number, PaymentState.NOT_FOUND))
        if isinstance(reply, ApiError) and is_missing(reply):
            return Known(PaymentView(ref.number, PaymentState.NOT_FOUND), reply.raw)
        if not isinstance(reply, Answer):
            return refusal("query", reply)
        return (yield from self._view(ref, reply))

    def close(self, ref: PaymentRef) -> Conversation[Outcome[CloseAnswer]]:
        """Expire the session, or cancel the intent. An intent that Checkout made is not ours to cancel."""
        path = yield from self._path_to_end(ref)
        if not isinstance(path, str):
            return path
        reply = yield from self._post(path, [], "")
        if isinstance(reply, Answer):
            return _closed_as_seen((yield from self._view(ref, reply)))
        if not isinstance(reply, ApiError):
            return reply
        if is_missing(reply):
            return Known(CloseAnswer(CloseState.UNPROVED), reply.raw)
        if reply.status != 400:
            return refusal("close", reply)
        if reply.intent is not None and reply.code == "payment_intent_unexpected_state":
            carried = Answer(reply.intent, reply.raw)
            view = read(carried, lambda record: _own(objects.payment_of_intent(record), ref.number))
            if isinstance(view, Known) and view.value.state in {PaymentState.CLOSED, PaymentState.IN_PROGRESS}:
                return _closed_as_seen(view)
        # It was paid or ended before: only a new look tells with which amounts.
        return _closed_as_seen((yield from self.query(ref)))

    def _path_to_end(self, ref: PaymentRef) -> Conversation[str | Outcome[CloseAnswer]]:
        """Where to ask for the end of a stream; or the answer, where there is nothing to ask for."""
        reference = ref.channel_reference
        if _is_reference(reference) and (reference.startswith("cs_") or ref.method == CARD):
            return _end_of(reference)
        reply = yield from self._find(ref)
        if reply is None or (isinstance(reply, ApiError) and is_missing(reply)):
            return Known(CloseAnswer(CloseState.UNPROVED))
        if not isinstance(reply, Answer):
            return refusal("close", reply)
        seen = yield from self._view(ref, reply)
        is_checkouts = reply.record.get("object") == "payment_intent" and objects.is_from_checkout(reply.record)
        if is_checkouts or not isinstance(seen, Known) or seen.value.state is not PaymentState.OPEN:
            return _closed_as_seen(seen)
        found = read(reply, lambda record: objects.identifier(record, "cs_", "pi_"))
        return _end_of(found.value) if isinstance(found, Known) else found

    def refund(self, request: RefundRequest) -> Conversation[Outcome[RefundView]]:
        """Give money back under the keys of the refund's number, in order.

        A key whose stored answer is a definite no, or a refund that failed since, is spent: the next key is a new try. One
        whose outcome is unknown is never passed by.
        """
        amount = forms.to_wire(request.amount_minor, request.currency)
        if amount is None:
            return Refused(RefusedKind.CONFIG, "amount_not_representable", _NO_SUCH_AMOUNT)
        intent = yield from self._intent_of(request.payment)
        if not isinstance(intent, str):
            return Refused(RefusedKind.CONFLICT, "not_paid") if intent is None else intent
        pairs = forms.refund_form(request, intent, amount)
        for generation in range(1, KEYS_PER_REFUND_MAX + 1):
            key = f"payonce:refund:{request.refund_number}" + (f":{generation}" if generation > 1 else "")
            reply = yield from self._post("/v1/refunds", pairs, key)
            outcome = _refund_outcome(reply, request.refund_number)
            if not isinstance(reply, Answer | ApiError) or not reply.is_replayed:
                return outcome
            if isinstance(outcome, Known):
                # The stored answer tells how it was when it was made.
                fresh = yield from self._get(f"/v1/refunds/{outcome.value.channel_reference}")
                outcome = _refund_outcome(fresh, request.refund_number)
            if not _is_definite_no(reply, outcome):
                return outcome
        return outcome

    def query_refund(self, ref: RefundRef) -> Conversation[Outcome[RefundView]]:
        """Find the refund's number among all refunds of the payment; the newest that did not fail speaks for it."""
        intent = yield from self._intent_of(ref.payment)
        if intent is None:
            return Known(RefundView(ref.refund_number, RefundState.NOT_FOUND))
        if not isinstance(intent, str):
            return intent
        path = "/v1/refunds?" + urlencode([("payment_intent", intent), ("limit", str(PAGE))])
        listed = yield from self._list(path, SEARCH_PAGES_MAX)
        if not isinstance(listed, Listed):
            return refusal("query_refund", listed)
        if not listed.is_complete:
            return Unknown("too_many_to_search")
        mine = [row for row in listed.rows if objects.metadata(row).get(forms.REFUND) == ref.refund_number]
        if not mine:
            return Known(RefundView(ref.refund_number, RefundState.NOT_FOUND), listed.raw)
        views = read(
            Answer({"rows": mine}, listed.raw), lambda record: [objects.refund_of(row) for row in record["rows"]]
        )
        if isinstance(views, Unknown):
            return views
        standing = [view for view in views.value if view.state is not RefundState.FAILED]
        return Known((standing or views.value)[0], listed.raw)

    def statement(self, day: date) -> Conversation[Outcome[tuple[StatementLine, ...]]]:
        """The balance transactions of one UTC day that are payments and refunds, fetched page by page."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        ends = start + timedelta(days=1)
        path = "/v1/balance_transactions?" + urlencode(
            [("created[gte]", str(int(start.timestamp()))), ("created[lt]", str(int(ends.timestamp()))),
             ("limit", str(PAGE)), ("expand[]", "data.source")]
        )  # fmt: skip
        listed = yield from self._list(path, STATEMENT_PAGES_MAX)
        if not isinstance(listed, Listed):
            return refusal("statement", listed)
        if not listed.is_complete:
            return Unknown("too_many_lines")
        try:
            lines = [line for row in listed.rows if (line := objects.statement_line(row)) is not None]
        except MalformedError as error:
            return Unknown(f"malformed:{error}")
        return Known(tuple(lines), f"{len(lines)} lines")

    def parse_notification(self, request: NotificationRequest, at: datetime) -> Notice | NotAuthentic:
        """Verify over the exact bytes with Stripe's own library, then read. Its tolerance looks only into the past: ours both ways."""
        sent_at = verify(request, self.settings.webhook_secret)
        if isinstance(sent_at, NotAuthentic):
            return sent_at
        try:
            notice = read_event(request.body, self.settings)
        except MalformedError as error:
            # Signed by Stripe and yet not readable: it must come again and be looked at, not be acknowledged.
            return NotAuthentic(f"malformed:{error}")
        if isinstance(notice, NotAuthentic) or abs(at - sent_at) <= CLOCKS_APART:
            return notice
        number = notice.payment.number if notice.payment else notice.refund.payment_number if notice.refund else ""
        return NotAuthentic("stale", stale=True, number=number, dedupe_key=notice.dedupe_key)

    def acknowledge(self, verdict: Verdict, reason: str = "") -> Acknowledgement:
        """Any 2xx ends the repeats; the words are for the dashboard. The reason stays here: it helps only a forger."""
        status = {Verdict.ACCEPT: 200, Verdict.RETRY: 500, Verdict.REJECT: 401}[verdict]
        return Acknowledgement(status, verdict.value.encode())

    # --- finding ---

    def _find(self, ref: PaymentRef) -> Conversation[Reply | None]:
        """The session or intent of a stream; None where a complete list does not hold it."""
        reference = ref.channel_reference
        if _is_reference(reference):
            method = WEB if reference.startswith("cs_") else CARD
            path = _SESSIONS if method == WEB else _INTENTS
            query = urlencode([("expand[]", _CHARGE_OF[method])])
            return (yield from self._get(f"{path}/{reference}?{query}"))
        if reference:
            return Unknown("foreign_reference")
        for method in (WEB, CARD) if ref.method not in {WEB, CARD} else (ref.method,):
            found = yield from self._search(ref, method)
            if found is not None:
                return found
        return None

    def _search(self, ref: PaymentRef, method: str) -> Conversation[Reply | None]:
        pairs = [("limit", str(PAGE)), ("expand[]", f"data.{_CHARGE_OF[method]}")]
        if ref.first_sent_at is not None:
            # It may have been made at any repeat since, as long as a repeat was allowed.
            window = timedelta(seconds=self.capabilities.replay_window_seconds or 0)
            since, until = ref.first_sent_at - CLOCKS_APART, ref.first_sent_at + window + CLOCKS_APART
            pairs += [("created[gte]", str(int(since.timestamp()))), ("created[lte]", str(int(until.timestamp())))]
        path = (_SESSIONS if method == WEB else _INTENTS) + "?" + urlencode(pairs)

        def is_mine(row: Record) -> bool:
            return objects.number_of(row) == ref.number and (method == WEB or not objects.is_from_checkout(row))

        listed = yield from self._list(path, SEARCH_PAGES_MAX, is_mine)
        if not isinstance(listed, Listed):
            return listed
        mine = [row for row in listed.rows if is_mine(row)]
        if mine:
            return Answer(mine[-1], listed.raw)
        return None if listed.is_complete else Unknown("too_many_to_search")

    def _view(self, ref: PaymentRef, reply: Answer) -> Conversation[Outcome[PaymentView]]:
        """What the session or intent says, with its disputes where there are any."""
        is_session = reply.record.get("object") == "checkout.session"
        say = objects.payment_of_session if is_session else objects.payment_of_intent
        view = read(reply, lambda record: _own(say(record), ref.number))
        if isinstance(view, Unknown) or view.value.state is not PaymentState.PAID:
            return view
        if not objects.is_disputed(reply.record):
            return view
        query = urlencode([("payment_intent", view.value.channel_reference), ("limit", str(PAGE))])
        listed = yield from self._list(f"/v1/disputes?{query}", SEARCH_PAGES_MAX)
        if not isinstance(listed, Listed):
            return refusal("query", listed)
        try:
            return Known(replace(view.value, disputed_minor=objects.disputed_minor(listed.rows, view.value)), view.raw)
        except MalformedError as error:
            return Unknown(f"malformed:{error}", raw=listed.raw)

    def _intent_of(self, ref: PaymentRef) -> Conversation[str | Refused | Unknown | None]:
        """The PaymentIntent that took the money; None where there is none yet."""
        if ref.channel_reference.startswith("pi_"):
            return ref.channel_reference
        seen = yield from self.query(ref)
        if not isinstance(seen, Known):
            return seen
        return seen.value.channel_reference or None

    # --- asking ---

    def _list(
        self, path: str, pages_max: int, is_enough: Callable[[Record], bool] | None = None
    ) -> Conversation["Listed | ApiError | Refused | Unknown"]:
        """The rows of a list, newest first, until its end, `pages_max`, or a page with a row that is enough."""
        rows: list[Record] = []
        raw, after = "", ""
        for _ in range(pages_max):
            reply = yield from self._get(path + (f"&starting_after={after}" if after else ""))
            if not isinstance(reply, Answer):
                return reply
            found = read(reply, objects.page)
            if isinstance(found, Unknown):
                return found
            data, more = found.value
            rows += data
            raw = reply.raw
            if not more or (is_enough is not None and any(is_enough(row) for row in data)):
                return Listed(rows, raw, not more)
            last = read(reply, lambda record: objects.identifier(record["data"][-1], ""))
            if isinstance(last, Unknown) or last.value == after:
                return Unknown("malformed:has_more", raw=raw)
            after = last.value
        return Listed(rows, raw, is_complete=False)

    def _get(self, target: str) -> Conversation[Reply]:
        return (yield from self._ask("GET", target, b"", ""))

    def _post(self, path: str, pairs: forms.Pairs, key: str) -> Conversation[Reply]:
        return (yield from self._ask("POST", path, forms.encode(pairs), key))

    def _ask(self, method: str, target: str, body: bytes, key: str) -> Conversation[Reply]:
        headers = {**self.settings.headers(), "accept": "application/json", "stripe-version": forms.API_VERSION}
        if method == "POST":
            headers["content-type"] = "application/x-www-form-urlencoded"
        if key:
            headers["idempotency-key"] = key
        total = float(self.settings.timeout_seconds)
        limits = (min(3.0, total), min(8.0, total), total)
        reply = yield HttpRequest(method, self.settings.base_url + target, headers, body, *limits)
        return judge(reply)


def _prepay(record: Record, request: PrepayRequest) -> Prepay | str:
    if request.method == WEB:
        return objects.prepay_of_session(record, request.number)
    return objects.prepay_of_intent(record, request.number, request.payable_until)


def _refund_outcome(reply: Reply, number: str) -> Outcome[RefundView]:
    if not isinstance(reply, Answer):
        return refusal("refund", reply)
    view = read(reply, objects.refund_of)
    if isinstance(view, Known) and view.value.refund_number != number:
        return Unknown("malformed:metadata", raw=reply.raw)
    return view


def _is_definite_no(stored: Reply, outcome: Outcome[RefundView]) -> bool:
    """Does the stored answer of a key, as it stands now, prove that the key moved nothing and never will?"""
    if isinstance(stored, ApiError):
        return isinstance(outcome, Refused) and stored.type != "idempotency_error"
    return isinstance(outcome, Known) and outcome.value.state is RefundState.FAILED


def _own(view: PaymentView, number: str) -> PaymentView:
    if view.number != number:
        raise MalformedError("metadata")
    return view


def _is_reference(reference: str) -> bool:
    return reference.startswith(("cs_", "pi_")) and reference.isascii() and reference.replace("_", "").isalnum()


def _end_of(identifier: str) -> str:
    return f"{_SESSIONS}/{identifier}/expire" if identifier.startswith("cs_") else f"{_INTENTS}/{identifier}/cancel"


def _closed_as_seen(seen: Outcome[PaymentView]) -> Outcome[CloseAnswer]:
    if not isinstance(seen, Known):
        return seen
    return Known(CloseAnswer(_CLOSE_OF_STATE.get(seen.value.state, CloseState.UNPROVED), seen.value), seen.raw)
