"""What the stories found in the product, each as the shortest story that shows it."""

import json

from payonce.orders.models import Event
from payonce.payments.models import Discrepancy
from tests.factories import apply, paid_stream, view_of


def test_a_case_grows_with_the_money_that_it_is_about(scripted):
    """M1: a dispute, and then a second one: the open case names the whole difference."""
    stream = paid_stream()
    apply(stream, view_of(stream, disputed_minor=300))
    apply(stream, view_of(stream, disputed_minor=300, reversed_minor=200))
    case = Discrepancy.objects.get()
    assert (case.kind, case.amount_minor, case.state) == ("dispute", 500, "OPEN")
    assert json.loads(case.evidence) == {"disputed_minor": 300, "reversed_minor": 200}
    grown = Event.objects.get(kind="case.grown")
    assert json.loads(grown.body)["facts"] == {"amount_minor": 500, "was_minor": 300, "case": "dispute"}


def test_a_case_does_not_shrink(scripted):
    stream = paid_stream()
    apply(stream, view_of(stream, refunded_minor=300))
    apply(stream, view_of(stream, refunded_minor=100))
    assert Discrepancy.objects.get().amount_minor == 300
    assert not Event.objects.filter(kind="case.grown").exists()
