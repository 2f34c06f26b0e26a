"""Every crime that the checker must report: how to commit it in a played run, and the id and words under which it is found."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.torture.scene import Scene, canonical
from torture.rules import Mode

ALWAYS, REST = Mode.ALWAYS, Mode.REST


@dataclass(frozen=True)
class Plant:
    """One planted violation. `also` are ids that cannot but be reported beside it."""

    rule: str
    says: str
    commit: Callable[[Scene], None]
    mode: Mode
    also: frozenset[str]
    liveness_scale: float

    def __str__(self) -> str:
        return f"{self.rule}-{self.commit.__name__}"


PLANTS: list[Plant] = []


def plant(
    rule: str, says: str, *also: str, mode: Mode = ALWAYS, liveness_scale: float = 0.0
) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    """Register a crime: the id that must be reported, words of its text, and the ids that come with it."""

    def register(commit: Callable[[Scene], None]) -> Callable[[Scene], None]:
        PLANTS.append(Plant(rule, says, commit, mode, frozenset(also), liveness_scale))
        return commit

    return register


# --- money ---


@plant("M1", "no case names the difference", mode=REST)
def money_left_unnamed(scene: Scene) -> None:
    scene.move("parts", "dispute", -100)


@plant("M1", "no case names the difference", mode=REST)
def a_case_names_less_than_left(scene: Scene) -> None:
    scene.set("discrepancy", scene.cases("disputed")[0], amount_minor=299)


@plant("M1", "no case names the difference", "S2", mode=REST)
def a_case_was_resolved_by_nobody(scene: Scene) -> None:
    scene.set("discrepancy", scene.cases("disputed")[0], state="RESOLVED", decision="automatic", decided_by="payonce")
    scene.edit_event("disputed", "case.opened", state_to="")
    scene.edit_event("disputed", "case.opened", state_to="RESOLVED")


@plant("M1", "no stream has it, and no case", mode=REST)
def a_second_capture_that_nobody_took_in(scene: Scene) -> None:
    capture = scene.captures("parts")[0]
    scene.ledger.captures.append({**capture, "id": 10**6, "reference": "cap_unseen"})
    scene.move("parts", "capture", 1000, reference="cap_unseen")


@plant("M1", "no stream, no case", "S6", mode=REST)
def an_orphan_without_a_case(scene: Scene) -> None:
    scene.ledger.payments.append({**scene.payment("parts"), "number": "po0000000000000s01"})
    scene.ledger.captures.append(
        {**scene.captures("parts")[0], "number": "po0000000000000s01", "reference": "cap_orphan"}
    )


@plant("M2", "its refunds hold 800")
def a_reservation_that_is_not_the_sum(scene: Scene) -> None:
    scene.set("stream", scene.streams("parts")[0], refund_reserved_minor=900)


@plant("M2", "its refunds hold 1200", "M6", "S6", "S10", "S15")
def more_is_reserved_than_was_captured(scene: Scene) -> None:
    refund = scene.refunds("parts")[1]
    scene.set("refund", refund, amount_minor=800)
    scene.set("stream", scene.streams("parts")[0], refund_reserved_minor=1200)


@plant("M2", "released=True")
def a_live_refund_gave_its_reservation_up(scene: Scene) -> None:
    scene.set("refund", scene.refunds("parts")[0], is_released=True)
    scene.set("stream", scene.streams("parts")[0], refund_reserved_minor=400)


@plant("M2", "more left the channel than came")
def the_channel_gave_back_more_than_it_took(scene: Scene) -> None:
    scene.move("parts", "refund", -300)


@plant("M3", "nobody is told", "S14", mode=REST)
def a_surplus_that_was_not_given_back(scene: Scene) -> None:
    scene.set("stream", scene.streams("twice")[0], captured_minor=1200, refund_reserved_minor=1000)


@plant("M3", "given back 2 times", "M2", "S10", "S14")
def a_surplus_that_was_given_back_twice(scene: Scene) -> None:
    first = scene.refunds("twice")[0]
    scene.copy("refund", first, number=first["number"][:-1] + "2", sequence=2)


@plant("M4", "its streams say")
def a_second_keeper(scene: Scene) -> None:
    scene.set("stream", scene.streams("twice")[0], role="keeper")


@plant("M4", "its history chose the keepers")
def a_history_that_chose_another_keeper(scene: Scene) -> None:
    scene.edit_event("twice", "order.paid", subject=scene.streams("twice")[0]["number"])


@plant("M4", "its history chose the keepers", "S11")
def a_history_that_chose_twice(scene: Scene) -> None:
    scene.event("parts", "order.paid", subject=scene.streams("parts")[0]["number"])


@plant("M5", "is refunded automatically")
def a_keeper_refunded_by_itself(scene: Scene) -> None:
    scene.set("refund", scene.refunds("parts")[0], requested_by="payonce", approved_by="")


@plant("M6", "should be")
def a_number_that_is_no_function(scene: Scene) -> None:
    scene.set("refund", scene.refunds("parts")[1], sequence=5)


@plant("M6", "started while", "S10")
def a_new_number_without_proof(scene: Scene) -> None:
    scene.edit_event("parts", "refund.succeeded", state_to="")


@plant("M6", "several unfinished refunds", "S10")
def two_refunds_under_way(scene: Scene) -> None:
    for refund in scene.refunds("parts"):
        scene.set("refund", refund, state="UNKNOWN")


@plant("M7", "pays several streams")
def one_reference_pays_two_streams(scene: Scene) -> None:
    first, second = scene.streams("doubled")
    scene.set("stream", second, channel_reference=first["channel_reference"])


@plant("M8", "amount_minor is numeric")
def an_amount_that_may_be_broken(scene: Scene) -> None:
    scene.database.execute("ALTER TABLE payonce_refund ALTER COLUMN amount_minor TYPE numeric")


@plant("M8", "a float 9.5")
def a_float_in_an_event(scene: Scene) -> None:
    scene.edit_event("parts", "refund.requested", facts={"rate": 9.5})


@plant("M8", "a float 9.5")
def a_float_in_a_message(scene: Scene) -> None:
    message = scene.messages("parts")[0]
    scene.set("shop_message", message, body=json.dumps({**json.loads(message["body"]), "rate": 9.5}))


@plant("M8", "a float 9.5")
def a_float_in_a_case(scene: Scene) -> None:
    scene.set("discrepancy", scene.cases("disputed")[0], evidence='{"rate":9.5}')


@plant("M9", "was amended while", "S2", "S3", "S10", "S16")
def an_amendment_over_an_open_stream(scene: Scene) -> None:
    scene.edit_event("amended", "stream.closing", state_to="")


@plant("M9", "was amended while", "S3")
def an_amendment_over_an_unwatched_stream(scene: Scene) -> None:
    scene.edit_event("amended", "stream.watched", kind="stream.noted")


@plant("M9", "amended after it was paid")
def an_amendment_of_a_paid_order(scene: Scene) -> None:
    scene.event("parts", "order.amended", told=True, amount_minor=1000, currency="CNY")


@plant("M9", "its history says")
def an_amount_without_its_event(scene: Scene) -> None:
    scene.set("order", scene.order("amended"), amount_minor=501)


# --- state and evidence ---


@plant("S1", "without a succeeded keeper", "S10", "S11")
def paid_by_a_stream_that_did_not_succeed(scene: Scene) -> None:
    scene.set("stream", scene.streams("parts")[0], state="PROCESSING")


@plant("S1", "without a succeeded keeper", "M4")
def paid_by_nobody(scene: Scene) -> None:
    scene.set("order", scene.order("parts"), keeper=None)


@plant("S1", "is paid by another amount")
def paid_by_too_little(scene: Scene) -> None:
    scene.set("stream", scene.streams("parts")[0], captured_minor=999)


@plant("S1", "is paid by another amount")
def paid_in_another_currency(scene: Scene) -> None:
    scene.set("stream", scene.streams("parts")[0], captured_currency="EUR")


@plant("S1", "is not what the channel took")
def evidence_that_the_channel_does_not_have(scene: Scene) -> None:
    scene.captures("parts")[0]["amount_minor"] = 999


@plant("S2", "was PAID")
def an_event_that_begins_where_nothing_ended(scene: Scene) -> None:
    scene.edit_event("returned", "order.refunded", state_from="OPEN")


@plant("S2", "went ∅ → PENDING")
def an_arrow_that_is_not_in_the_graph(scene: Scene) -> None:
    scene.edit_event("parts", "stream.created", state_to="")
    scene.edit_event("parts", "stream.pending", state_from="")


@plant("S2", "went SUCCEEDED → CLOSED", "S1", "S10", "S11")
def a_success_that_became_something_else(scene: Scene) -> None:
    stream = scene.streams("parts")[0]
    scene.event("parts", "stream.closed", subject=stream["number"])
    scene.edit_event("parts", "stream.closed", state_from="SUCCEEDED", state_to="CLOSED")


@plant("S3", "has 2 open streams", "S10")
def two_open_streams(scene: Scene) -> None:
    scene.set("order", scene.order("amended"), state="OPEN")
    for stream in scene.streams("amended"):
        scene.set("stream", stream, state="PENDING")


@plant("S3", "still waits for the buyer", "S10")
def a_stream_waits_for_a_closed_order(scene: Scene) -> None:
    scene.set("stream", scene.streams("amended")[1], state="PENDING")


@plant("S3", "opened while the order was PAID")
def a_stream_opened_for_a_paid_order(scene: Scene) -> None:
    scene.event("parts", "stream.taken_back", subject=scene.streams("parts")[0]["number"])


@plant("S3", "not watched")
def a_stream_opened_over_an_unwatched_one(scene: Scene) -> None:
    scene.edit_event("twice", "stream.watched", kind="stream.noted")


@plant("S4", "failed without a code", "S10")
def a_failure_without_a_code(scene: Scene) -> None:
    scene.set("stream", scene.streams("amended")[1], state="FAILED", failure_code="")


@plant("S4", "closed without a proof")
def a_close_without_a_proof(scene: Scene) -> None:
    scene.set("stream", scene.streams("amended")[1], close_proof="")


@plant("S4", "before its time was over")
def a_close_by_expiry_too_early(scene: Scene) -> None:
    scene.set("stream", scene.streams("amended")[1], close_proof="expiry", payable_until=scene.at)


@plant("S4", "by our restraint alone")
def a_close_by_restraint_of_what_was_captured(scene: Scene) -> None:
    scene.set(
        "stream", scene.streams("amended")[1], close_proof="restraint", capture_key="k", handed_out_at=scene.ago(20)
    )


@plant("S4", "counts as proven closed")
def a_close_that_the_books_do_not_know(scene: Scene) -> None:
    scene.set("stream", scene.streams("amended")[1], close_proof="answer")
    scene.payment("amended", 1)["closed_at"] = None


@plant("S5", "counts as proven closed")
def already_paid_taken_for_a_close(scene: Scene) -> None:
    scene.set("stream", scene.streams("amended")[1], close_proof="answer")
    payment = scene.payment("amended", 1)
    payment["closed_at"] = None
    scene.ledger.captures.append(
        {
            **scene.captures("parts")[0],
            "number": payment["number"],
            "account": payment["account"],
            "reference": "cap_early",
        }
    )


@plant("S6", "there is no such stream")
def a_payment_without_an_intent(scene: Scene) -> None:
    scene.ledger.payments.append({**scene.payment("parts"), "number": "po0000000000000s01"})


@plant("S6", "there is no such refund")
def a_refund_without_an_intent(scene: Scene) -> None:
    scene.ledger.refunds.append({**scene.ledger.refunds[0], "number": "po0000000000000s01rs1"})


@plant("S6", "is another amount at the channel")
def a_payment_of_another_amount(scene: Scene) -> None:
    scene.payment("amended")["amount_minor"] = 1


@plant("S6", "under a key that no row holds")
def a_capture_without_its_key(scene: Scene) -> None:
    scene.captures("returned")[0]["capture_key"] = "another"


@plant("S6", "no row says that it was sent")
def a_refund_that_nobody_marked_as_sent(scene: Scene) -> None:
    scene.set("refund", scene.refunds("parts")[0], first_sent_at=None)


@plant("S6", "400 here")
def a_refund_of_another_amount(scene: Scene) -> None:
    number = scene.refunds("parts")[0]["number"]
    next(row for row in scene.ledger.refunds if row["number"] == number)["amount_minor"] = 399


@plant("S7", "was placed, and it is gone")
def an_order_that_was_placed_is_gone(scene: Scene) -> None:
    scene.done("place", order="po0000000000000")


@plant("S7", "a buyer was given stream")
def a_stream_that_a_buyer_got_is_gone(scene: Scene) -> None:
    scene.operation("pay")["result"] = {"code": "already_paid", "stream": "po0000000000000s01"}


@plant("S7", "was accepted, and it is gone")
def a_refund_that_was_accepted_is_gone(scene: Scene) -> None:
    scene.done("refund", refund="po0000000000000s01rp1")


@plant("S7", "was acknowledged, and it is gone")
def a_notification_that_was_acknowledged_is_gone(scene: Scene) -> None:
    key = scene.operation("notify")["id"]
    line = next(line for line in scene.history if line["id"] == key and line["type"] == "invoke")
    scene.database.execute("DELETE FROM payonce_notification WHERE dedupe_key = %s", [line["args"]["dedupe_key"]])


@plant("S8", "of somebody else")
def a_prepay_of_another_order(scene: Scene) -> None:
    scene.operation("pay")["result"]["stream"] = scene.streams("parts")[0]["number"]


@plant("S8", "handed out")
def a_prepay_of_another_channel(scene: Scene) -> None:
    number = scene.operation("pay")["id"]
    next(line for line in scene.history if line["id"] == number)["args"]["channel"] = "hold"


@plant("S8", "and later a buyer was handed")
def a_prepay_after_the_order_was_paid(scene: Scene) -> None:
    paid = next(row for row in scene.events("parts") if row["kind"] == "order.paid")
    args = {"order": scene.numbers["parts"], "db_at": paid["at"].timestamp() + 31}
    scene.done("pay", args=args, code="prepay", stream=scene.streams("parts")[0]["number"])


@plant("S9", "for 1 different bodies")
def one_key_made_two_things(scene: Scene) -> None:
    for refund in scene.refunds("parts"):
        scene.done("refund", args={"idempotency_key": "k", "body": "400"}, refund=refund["number"])


@plant("S9", "for 2 different bodies")
def one_key_served_two_bodies(scene: Scene) -> None:
    for body in ("400", "500"):
        args = {"idempotency_key": "k", "body": body}
        scene.done("refund", args=args, refund=scene.refunds("parts")[0]["number"])


@plant("S10", "is missing", "S2")
def an_event_is_gone(scene: Scene) -> None:
    scene.delete("event", scene.events("parts")[2])


@plant("S10", "does not match its hash")
def an_event_was_changed(scene: Scene) -> None:
    row = scene.events("parts")[0]
    scene.set("event", row, body=row["body"].replace('"by":"', '"by":"x'))


@plant("S10", "the head says")
def the_head_is_behind(scene: Scene) -> None:
    scene.set("order", scene.order("parts"), version=scene.order("parts")["version"] - 1)


@plant("S10", "body is not JSON", "M9")
def a_body_that_cannot_be_read(scene: Scene) -> None:
    scene.set("event", scene.events("amended")[0], body="{")
    scene.rechain("amended")


@plant("S10", "differs from its columns in ['kind']")
def columns_that_say_something_else(scene: Scene) -> None:
    row = next(row for row in scene.events("parts") if row["kind"] == "stream.pending")
    scene.set("event", row, kind="stream.handed_out")


@plant("S10", "differs from its columns in ['order']")
def an_event_of_another_order(scene: Scene) -> None:
    row = scene.events("parts")[1]
    scene.set("event", row, body=canonical({**json.loads(row["body"]), "order": "po0000000000000"}))
    scene.rechain("parts")


@plant("S10", "is not canonical")
def a_body_in_another_form(scene: Scene) -> None:
    row = scene.events("parts")[0]
    scene.set("event", row, body=json.dumps(json.loads(row["body"]), sort_keys=True))
    scene.rechain("parts")


@plant("S10", "is PENDING in its row and CLOSED by its events", "S3")
def a_state_without_its_event(scene: Scene) -> None:
    scene.set("stream", scene.streams("amended")[1], state="PENDING")


@plant("S10", "is OPEN in its row and CLOSED by its events")
def an_order_reopened_without_an_event(scene: Scene) -> None:
    scene.set("order", scene.order("amended"), state="OPEN")


@plant("S10", "is None in its row and CLOSED by its events", "S6", "S7", "S8")
def events_of_a_stream_that_is_gone(scene: Scene) -> None:
    scene.delete("stream", scene.streams("amended")[1])


@plant("S10", "and 1 events that opened one")
def a_case_that_nobody_opened(scene: Scene) -> None:
    scene.copy("discrepancy", scene.cases("disputed")[0])


@plant("S10", "is RESOLVED in its row and OPEN by its events")
def a_case_closed_in_silence(scene: Scene) -> None:
    scene.set("discrepancy", scene.cases("disputed")[0], state="RESOLVED")


@plant("S10", "no enabled trigger refuses")
def the_history_lies_open(scene: Scene) -> None:
    scene.database.execute("ALTER TABLE payonce_event DISABLE TRIGGER payonce_event_append_only")


@plant("S10", "no enabled trigger refuses")
def the_history_may_be_deleted(scene: Scene) -> None:
    scene.database.execute(
        "DROP TRIGGER payonce_event_append_only ON payonce_event; CREATE TRIGGER payonce_half BEFORE UPDATE ON payonce_event"
        " FOR EACH ROW EXECUTE FUNCTION payonce_event_append_only()"
    )


@plant("S11", "is not owed event")
def a_message_that_was_never_written(scene: Scene) -> None:
    scene.delete("shop_message", scene.messages("parts")[-1])


@plant("S11", "https://shop.example/hook is not owed event")
def another_listener_that_is_left_out(scene: Scene) -> None:
    first, *_left_out, last = scene.messages("parts")
    for message in (first, last):
        scene.copy("shop_message", message, listener="https://shop.example/hook", state="SKIPPED")


@plant("S11", "something else than its event")
def a_message_about_something_else(scene: Scene) -> None:
    message = scene.messages("parts")[0]
    scene.set("shop_message", message, body=json.dumps({**json.loads(message["body"]), "kind": "order.closed"}))


@plant("S11", "tells of no event")
def a_message_about_nothing(scene: Scene) -> None:
    scene.copy("shop_message", scene.messages("parts")[-1], sequence=99, state="PENDING")


@plant("S11", "told out of order")
def a_message_overtook_another(scene: Scene) -> None:
    scene.set("shop_message", scene.messages("parts")[0], state="PENDING")


@plant("S11", "told earlier than the message before")
def a_message_was_told_too_early(scene: Scene) -> None:
    scene.set("shop_message", scene.messages("parts")[-1], delivered_at=scene.ago(100))


@plant("S11", "heard the events in the order")
def an_inbox_out_of_order(scene: Scene) -> None:
    mine = [at for at, line in enumerate(scene.inbox) if line["order"] == scene.numbers["parts"]]
    scene.inbox[mine[0]], scene.inbox[mine[1]] = scene.inbox[mine[1]], scene.inbox[mine[0]]


@plant("S11", "never heard what counts as delivered")
def an_inbox_with_a_hole(scene: Scene) -> None:
    scene.inbox.remove(next(line for line in scene.inbox if line["order"] == scene.numbers["parts"]))


@plant("S11", "not told yet", mode=REST)
def a_message_still_waits_at_rest(scene: Scene) -> None:
    scene.set("shop_message", scene.messages("parts")[-1], state="PENDING")


@plant("S11", "nobody is asked", mode=REST)
def a_parked_message_without_a_case(scene: Scene) -> None:
    scene.set("shop_message", scene.messages("parts")[-1], state="PARKED")


@plant("S11", "and the shop believes", mode=REST)
def a_shop_that_believes_something_else(scene: Scene) -> None:
    [line for line in scene.inbox if line["order"] == scene.numbers["returned"]][-1]["state"] = "PAID"


@plant("S12", "it was")
def a_pull_that_was_never_true(scene: Scene) -> None:
    scene.done("pull", args={"order": scene.numbers["parts"]}, version=1, state="PAID")


@plant("S12", "the last pull said", mode=REST)
def a_page_that_stayed_behind(scene: Scene) -> None:
    scene.done("pull", args={"order": scene.numbers["parts"]}, version=1, state="OPEN")


@plant("S13", "hangs in PENDING, and nobody knows", "S3", "S10", mode=REST)
def a_stream_that_nobody_asks_about(scene: Scene) -> None:
    scene.set("stream", scene.streams("amended")[1], state="PENDING", next_check_at=None)


@plant("S13", "hangs in PENDING, and nobody knows", "S3", "S10", mode=REST)
def a_stream_that_is_asked_about_for_ever(scene: Scene) -> None:
    long_ago = {"created_at": scene.ago(48), "payable_until": scene.ago(47)}
    scene.set("stream", scene.streams("amended")[1], state="PENDING", next_check_at=scene.at, **long_ago)


@plant("S13", "hangs in UNKNOWN, and nobody knows", "S10", "M1", mode=REST)
def a_refund_that_nobody_carries_on(scene: Scene) -> None:
    scene.set("refund", scene.refunds("parts")[1], state="UNKNOWN", next_try_at=None)


@plant("S13", "hangs in AWAITING_APPROVAL, and nobody knows", "S10", "S15", "M1", mode=REST)
def an_approval_that_everybody_forgot(scene: Scene) -> None:
    scene.set("refund", scene.refunds("parts")[1], state="AWAITING_APPROVAL", approval_expires_at=scene.ago(1))


@plant("S13", "hangs in REJECTED, and nobody knows", "S10", "M1", mode=REST)
def a_refusal_that_nobody_was_told(scene: Scene) -> None:
    scene.set("refund", scene.refunds("parts")[1], state="REJECTED")


@plant("S13", "hangs in CLOSING, and nobody knows", "S10", "S12", mode=REST)
def an_order_that_never_closes(scene: Scene) -> None:
    scene.set("order", scene.order("amended"), state="CLOSING", next_expiry_at=None)


@plant("S13", "is OPEN past its time", "S10", "S12", mode=REST)
def an_order_that_never_expires(scene: Scene) -> None:
    scene.set("order", scene.order("amended"), state="OPEN", expires_at=scene.ago(1))


@plant("S13", "is being repaired by nothing", "S10", mode=REST)
def a_repair_that_nothing_does(scene: Scene) -> None:
    scene.set("discrepancy", scene.cases("disputed")[0], state="REPAIRING")


@plant("S13", "was never applied", mode=REST)
def a_notification_that_lies_there(scene: Scene) -> None:
    row = scene.rows("SELECT * FROM payonce_notification WHERE state = 'PROCESSED' LIMIT 1")[0]
    scene.set("notification", row, state="RECEIVED")


@plant("S14", "books do not show")
def a_surplus_that_the_channel_never_took(scene: Scene) -> None:
    scene.ledger.captures.remove(scene.captures("twice", 0)[0])


@plant("S14", "which never happened")
def a_shop_was_told_a_tale(scene: Scene) -> None:
    line = next(line for line in scene.inbox if line["order"] == scene.numbers["parts"])
    scene.inbox.append({**line, "id": f"{line['order']}-99", "sequence": 99})


@plant("S14", "there is no such order")
def a_shop_was_told_about_an_order_that_is_gone(scene: Scene) -> None:
    scene.inbox.append({**scene.inbox[0], "order": "po0000000000000", "id": "po0000000000000-1"})


@plant("S14", "succeeded here, and the channel has it")
def a_refund_that_the_channel_never_made(scene: Scene) -> None:
    for row in scene.moves(scene.refunds("parts")[0]):
        scene.ledger.journal.remove(row)


@plant("S14", "the channel's money is gone", "S10", "M2")
def a_refund_returned_that_did_not_come_back(scene: Scene) -> None:
    scene.set("refund", scene.refunds("parts")[0], state="RETURNED")


@plant("S15", "approved by its requester")
def one_person_in_two_roles(scene: Scene) -> None:
    refund = scene.refunds("returned")[1]
    scene.set("refund", refund, approved_by=refund["requested_by"])


@plant("S15", "sent without its approval")
def a_refund_sent_unapproved(scene: Scene) -> None:
    scene.edit_event("returned", "refund.approved", kind="refund.noted")


@plant("S15", "was declined, and sent")
def a_declined_refund_was_sent(scene: Scene) -> None:
    scene.set("refund", scene.refunds("returned")[0], first_sent_at=scene.at)


@plant("S15", "400 was decided")
def a_refund_moved_another_amount(scene: Scene) -> None:
    scene.moves(scene.refunds("parts")[0])[0]["amount_minor"] = -300


@plant("S15", "and the channel gave 1000 back", "M2")
def a_declined_refund_moved_money(scene: Scene) -> None:
    scene.move("returned", "refund", -1000, refund_number=scene.refunds("returned")[0]["number"])


@plant("S16", "opened while", "S2", "S3")
def a_switch_past_money_on_its_way(scene: Scene) -> None:
    scene.edit_event("twice", "stream.pending", state_to="PROCESSING")
    scene.edit_event("twice", "stream.closing", state_to="")


@plant("S16", "was closed while PROCESSING", "S2")
def a_close_past_money_on_its_way(scene: Scene) -> None:
    scene.edit_event("amended", "stream.pending", state_to="PROCESSING")


@plant("S16", "ended by expiry", "S2")
def an_end_by_the_clock_alone(scene: Scene) -> None:
    scene.edit_event("late", "stream.pending", state_to="PROCESSING")
    scene.edit_event("late", "stream.closing", state_to="")
    scene.edit_event("late", "stream.closed", facts={"proof": "expiry"})


@plant("S16", "was closed while", "S2", "S10")
def an_order_closed_over_an_open_stream(scene: Scene) -> None:
    scene.edit_event("late", "stream.closing", state_to="")
    scene.edit_event("late", "stream.closed", state_to="")


# --- liveness ---


@plant("L1", "the bound is 30 s", liveness_scale=1)
def a_lost_notification_found_too_late(scene: Scene) -> None:
    number = scene.streams("parts")[0]["number"]
    next(row for row in scene.ledger.notifications if row["number"] == number)["state"] = "LOST"
    scene.captures("parts")[0]["paid_at"] -= 3600


@plant("L2", "the bound is 60 s", liveness_scale=1)
def a_surplus_refunded_too_late(scene: Scene) -> None:
    refund = scene.refunds("twice")[0]
    scene.set("refund", refund, accepted_at=scene.at)


@plant("L3", "the bound is 30 s", liveness_scale=1)
def work_that_stayed_dead(scene: Scene) -> None:
    scene.done("kill")
    scene.done("resumed", after=31)


@plant("L4", "the bound is 60 s", liveness_scale=1)
def a_shop_that_waited(scene: Scene) -> None:
    scene.done("shop_up")
    scene.done("shop_told", after=61)


@plant("L5", "the bound is 120 s", liveness_scale=1)
def a_run_that_did_not_come_to_rest(scene: Scene) -> None:
    scene.done("healed")
    scene.done("rest", after=121)


# --- security ---


@plant("X1", "was answered 200")
def a_forgery_that_was_believed(scene: Scene) -> None:
    scene.operation("forge")["result"]["status"] = 200


@plant("X1", "were recorded")
def a_forgery_that_left_no_mark(scene: Scene) -> None:
    scene.database.execute("DELETE FROM payonce_notification WHERE state = 'FORGED'")


@plant("X2", "was answered 401")
def a_replay_that_was_refused(scene: Scene) -> None:
    scene.operation("replay")["result"]["status"] = 401


@plant("X2", "is stored 2 times")
def a_notification_stored_twice(scene: Scene) -> None:
    scene.copy("notification", scene.rows("SELECT * FROM payonce_notification WHERE state = 'PROCESSED' LIMIT 1")[0])
