"""Whatever comes back, an adapter answers with an outcome and believes only a verified, definite answer."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from payonce.channels.base import Conversation
from payonce.channels.contract.simulator import BREAKAGES, Simulator
from payonce.channels.http import run
from payonce.channels.messages import (
    CaptureRequest,
    HttpRequest,
    HttpResponse,
    Known,
    RefundRef,
    Refused,
    TransportError,
    Unknown,
)

CALL_SECONDS_MAX = 12.0
_ROUND_TRIPS_MAX = 20
_ANYTHING = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
_STATUSES = st.sampled_from([200, 201, 202, 204, 301, 400, 401, 402, 403, 404, 409, 422, 429, 500, 502, 503, 504, 599])
_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), st.just("9" * 5_000), st.just([]),
    st.just({}), st.sampled_from(["PAID", "\ud800", "\0", "1e999", "\u0661\u0662", -1, 10**18, 12.0]),
)  # fmt: skip
# Which value of an answer is replaced, by what, and under which status (None: its own).
_CHANGES = st.tuples(st.integers(0, 10**6), _LEAVES, st.one_of(st.none(), _STATUSES))


def conversations(simulator: Simulator, number: str) -> dict[str, Conversation[Any]]:
    """One conversation of each operation that the channel has."""
    channel, ref = simulator.channel, simulator.ref(number)
    made: dict[str, Conversation[Any]] = {
        "prepay": channel.prepay(simulator.prepay_request(number)),
        "query": channel.query(ref),
        "close": channel.close(ref),
        "refund": channel.refund(simulator.refund_request(number, "", f"r{number}", simulator.amount_minor)),
        "query_refund": channel.query_refund(RefundRef(ref, f"r{number}", simulator.amount_minor)),
    }
    if channel.capabilities.captures:
        made["capture"] = channel.capture(CaptureRequest(ref, f"k{number}"))
    if channel.capabilities.statement:
        made["statement"] = channel.statement(simulator.now().date())
    return made


class GarbageContract:
    """What holds when the other side, or the way to it, is broken."""

    @pytest.mark.parametrize("breakage", BREAKAGES)
    @pytest.mark.parametrize("operation", ["prepay", "query", "capture", "query_refund"])
    def test_spoilt_answer_is_unknown(self, simulator: Simulator, operation: str, breakage: str) -> None:
        number = simulator.registered()
        conversation = conversations(simulator, number).get(operation)
        if conversation is None or not simulator.break_next_answer(operation, breakage):
            pytest.skip(f"{operation} with {breakage} cannot be simulated")
        before = simulator.calls(operation, number)
        assert isinstance(simulator.run(conversation), Unknown)
        assert simulator.calls(operation, number) == before + 1

    def test_no_answer_is_unknown(self, simulator: Simulator) -> None:
        for conversation in conversations(simulator, simulator.new_number()).values():
            assert isinstance(run(conversation, lambda _: TransportError("read_timeout")), Unknown)

    def test_request_that_never_left_is_no_success(self, simulator: Simulator) -> None:
        for conversation in conversations(simulator, simulator.new_number()).values():
            outcome = run(conversation, lambda _: TransportError("connect_refused", sent=False))
            assert isinstance(outcome, Unknown | Refused)

    def test_every_request_has_limits(self, simulator: Simulator) -> None:
        def check(request: HttpRequest) -> TransportError:
            assert 0 < request.timeout_connect <= request.timeout_total
            assert 0 < request.timeout_read <= request.timeout_total <= CALL_SECONDS_MAX
            assert 0 < request.bytes_max <= 64_000_000
            assert request.url.isascii()
            return TransportError("read_timeout")

        for conversation in conversations(simulator, simulator.new_number()).values():
            run(conversation, check)

    def test_x4_secrets_appear_in_no_outcome(self, simulator: Simulator) -> None:
        number, reference = simulator.paid()
        texts = [repr(simulator.channel), str(simulator.channel.__dict__.get("settings", ""))]
        texts += [repr(simulator.run(each)) for each in conversations(simulator, number).values()]
        refund = simulator.refund_request(number, reference, f"s{number}", simulator.amount_minor)
        texts.append(repr(simulator.run(simulator.channel.refund(refund))))
        for secret in simulator.secrets():
            assert not any(secret in text for text in texts)

    @_ANYTHING
    @given(
        status=_STATUSES,
        headers=st.dictionaries(st.text(max_size=20), st.text(max_size=60), max_size=4),
        body=st.one_of(st.binary(max_size=400), _LEAVES.map(lambda value: json.dumps(value).encode())),
    )
    def test_any_answer_is_an_outcome_and_never_a_success(
        self, simulator: Simulator, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        for conversation in conversations(simulator, simulator.new_number()).values():
            outcome = run(conversation, _limited(HttpResponse(status, headers, body)))
            assert isinstance(outcome, Unknown | Refused)
            assert "\0" not in outcome.raw
            outcome.raw.encode()

    @_ANYTHING
    @given(changes=st.lists(_CHANGES, min_size=_ROUND_TRIPS_MAX, max_size=_ROUND_TRIPS_MAX))
    def test_signed_nonsense_never_raises_and_never_invents_types(
        self, simulator: Simulator, changes: list[tuple[int, Any, int | None]]
    ) -> None:
        """A genuine answer with one field replaced, truly signed: the adapter judges each field for itself."""
        number, _ = simulator.paid()
        for conversation in conversations(simulator, number).values():
            outcome = run(conversation, _counted(_spoiler(simulator, changes)))
            assert isinstance(outcome, Known | Unknown | Refused)
            outcome.raw.encode()
            if isinstance(outcome, Known):
                _assert_integers(outcome.value)


def _spoiler(simulator: Simulator, changes: list[tuple[int, Any, int | None]]) -> Any:
    """A transport that asks the simulator and changes one value of each answer."""
    left = iter(changes)

    def spoil(request: HttpRequest) -> HttpResponse | TransportError:
        reply = simulator.send(request)
        if not isinstance(reply, HttpResponse):
            return reply
        place, value, status = next(left)
        signed = simulator.sign(request, status or reply.status, _mutated(reply.body, place, value))
        if signed is None:
            pytest.skip("answers are not signed, or cannot be made here")
        return signed

    return spoil


def _limited(reply: HttpResponse) -> Any:
    return _counted(lambda _: reply)


def _counted(answer: Any) -> Any:
    """A transport that stops an endless conversation."""
    left = [_ROUND_TRIPS_MAX]

    def transport(request: HttpRequest) -> HttpResponse | TransportError:
        left[0] -= 1
        assert left[0] >= 0, "the conversation does not end"
        reply: HttpResponse | TransportError = answer(request)
        return reply

    return transport


def _mutated(body: bytes, place: int, value: Any) -> bytes:
    """The JSON document with one value replaced; other bytes where it is no JSON."""
    try:
        document = json.loads(body)
    except ValueError:
        return repr(value).encode("utf-8", "replace")
    paths = list(_paths(document))
    path = paths[place % len(paths)]
    if not path:
        return json.dumps(value).encode()
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return json.dumps(document).encode()


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*path, key))


def _assert_integers(value: Any) -> None:
    """M8: no float and no bool reaches an amount."""
    names = [name for name in dir(value) if name.endswith("_minor")]
    assert all(type(getattr(value, name)) is int for name in names)
