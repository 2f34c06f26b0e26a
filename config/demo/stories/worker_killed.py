"""(g) The worker is killed after the bank gave the money back and before payonce wrote that down."""

import signal

from config.demo.site import Site, until
from config.demo.tale import Story, Tale
from config.demo.two_wallets import open_both

ARRIVE_SECONDS = 30.0
OTHERS_SECONDS = 75.0
REFUND = """
SELECT r.number, r.state, r.call_lease <> '' AS is_called FROM payonce_refund AS r
JOIN payonce_stream AS s ON s.id = r.stream_id WHERE s.number = %s
"""


def tell(tale: Tale) -> None:
    """The refund's answer waits at a gate in the bank, its effect done, when the worker gets SIGKILL."""
    purchase = tale.place("worker-killed", 25500)
    in_a, in_b = open_both(tale, purchase)
    tale.buyer_pays(in_a)
    until(lambda: purchase.state == "PAID", ARRIVE_SECONDS, "wallet A's money settles the order")
    tale.others_done.wait(OTHERS_SECONDS)  # the worker is theirs too
    bank, gate = tale.site.bank, f"demo-{in_b}"
    bank.fault("refund", "gate_after", number=in_b, name=gate)
    bank.fault("notify", "lose", number=in_b, nth=2, times=None)  # the payment is told, the refund is not
    tale.buyer_pays(in_b)
    tale.check(bank.wait_at_gate(gate, seconds=ARRIVE_SECONDS), "the worker never asked for the refund")
    given_back = bank.sums(in_b)["refunded_minor"]
    tale.check(given_back == purchase.amount_minor, f"the bank gave back {given_back} before its answer")
    killed = kill_sweeper(tale.site)
    before = tale.site.rows(REFUND, in_b)
    bank.open_gate(gate)
    tale.did(f"the bank had given the money back when process {killed} got SIGKILL, before it heard the answer")
    unknown = len(before) == 1 and before[0]["state"] == "REQUESTED" and before[0]["is_called"]
    tale.check(unknown, f"the answer was written down before the kill: {before}")
    seconds = tale.wait_finished(purchase)
    tale.check_one_refund(in_b, purchase.amount_minor)
    asked = bank.calls("query_refund", in_b)
    tale.check(asked >= 1, "the refund was not asked about before anything else was done")
    tale.repaired(f"{seconds:.1f} s after the kill a new worker asked the bank first, and found the one refund done")


def kill_sweeper(site: Site) -> int:
    """SIGKILL to the process that works behind the pages, and to its children; the supervisor starts it again."""
    return site.supervisor.kill(site.sweeper, signal.SIGKILL)


STORY = Story("g", "Worker killed between answer and commit", tell, kills=True)
