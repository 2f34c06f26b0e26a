"""The live API against its own description: any request of its kind, and any that is not, by every role (X3, X6)."""

from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
import yaml
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.conftest import everything
from tests.fuzz.budget import fuzz
from tests.fuzz.conftest import Shopping, Site

DESCRIPTION = yaml.safe_load((Path(__file__).resolve().parents[2] / "docs" / "openapi.yaml").read_text())
OPERATIONS = sorted(
    (item["operationId"], path, method.upper())
    for path, methods in DESCRIPTION["paths"].items() for method, item in methods.items()
)  # fmt: skip
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    response_headers_conformance,
]  # fmt: skip
OUTSIDERS = ("nobody", "nonsense", "altered buyer", "other buyer", "other shop")
GOOD_BODIES: dict[str, list[dict[str, Any]]] = {
    "place_order": [{"reference": "F-1", "amount_minor": 1999, "currency": "CNY", "subject": "Book"}, {"amend": True}],
    "pay_order": [{"channel": "blue", "method": "qr"}, {"channel": "green", "method": "web"}],
    "close_order": [{"reason": "cancelled"}],
    "request_refund": [{"amount_minor": 1, "reason": "duplicate"}, {"amount_minor": 400, "reason": "other", "note": "x"}],
}  # fmt: skip
"""Fields that lead past the checks of single fields, laid over what was drawn in some of the requests."""


def test_the_description_is_of_every_address():
    assert {name for name, _path, _method in OPERATIONS} == {
        "place_order", "get_order", "follow_events", "pay_order", "close_order", "request_refund"
    }  # fmt: skip


@pytest.mark.timeout(0)
@pytest.mark.parametrize(("name", "path", "method"), OPERATIONS, ids=[name for name, _path, _method in OPERATIONS])
def test_any_request_is_answered_as_described(site: Site, shopping: Shopping, name: str, path: str, method: str):
    """No 5xx; status, type and body of every answer as described; who may not do it changes nothing."""
    operation = schemathesis.openapi.from_dict(DESCRIPTION)[path][method]
    numbers = [shopping.mine.number, shopping.theirs.number, shopping.stream.number, shopping.paid.number, "po0"]
    cases = st.one_of(
        operation.as_strategy(generation_mode=mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    )
    session = requests.Session()

    def ask(case: Any, role: str, number: str | None, overlay: dict[str, Any] | None) -> None:
        if number is not None and "number" in (case.path_parameters or {}):
            case.path_parameters["number"] = number
        if overlay and isinstance(case.body, dict):
            case.body = {**case.body, **overlay}
        case.headers = {key: value for key, value in (case.headers or {}).items() if key.lower() != "prefer"}
        token = shopping.tokens[role]
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        before = everything() if role in OUTSIDERS else {}
        asked = case.as_transport_kwargs(base_url=site.url, headers=headers)
        with session.request(**asked, stream=True, timeout=60) as answer:
            if answer.headers.get("Content-Type", "").startswith("text/event-stream"):
                assert answer.status_code == 200
                assert role not in OUTSIDERS or is_own(case, role), role
                return
            case.validate_response(answer, checks=CHECKS)
        if role in ("nobody", "nonsense", "altered buyer"):
            assert answer.status_code in (400, 401, 404), (role, answer.status_code)
        if role in OUTSIDERS and not is_own(case, role):
            assert everything() == before, f"{role} changed something by {method} {path}"

    def is_own(case: Any, role: str) -> bool:
        """What another shop or buyer does to its own order is its own business."""
        mine = name == "place_order" or (case.path_parameters or {}).get("number") == shopping.theirs.number
        return mine and role in ("other shop", "other buyer")

    ran = fuzz(
        name, ask, 25, case=cases, role=st.sampled_from(sorted(shopping.tokens)),
        number=st.one_of(st.none(), st.sampled_from(numbers)),
        overlay=st.one_of(st.none(), st.sampled_from(GOOD_BODIES.get(name, [{}]))),
    )  # fmt: skip
    session.close()
    assert ran >= 25
