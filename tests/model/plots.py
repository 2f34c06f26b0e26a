"""The plots of a storm's orders: how each goes, before chance adds to it."""

import random
from collections import deque

from tests.model.acts import Tale

PLOTS: tuple[tuple[str, ...], ...] = (
    ("pay", "open_page", "wallet", "notify"),
    ("pay", "pay_again", "wallet", "notify:twice"),
    ("pay", "wallet", "lose", "look"),
    ("pay", "wallet", "lose"),
    ("keyed", "keyed", "wallet", "notify", "keyed"),
    ("pay", "switch", "wallet", "notify"),
    ("pay", "switch", "wallet", "force:1", "notify:reversed", "sweep_refund"),
    ("pay:sure", "pay:shy", "wallet", "force:1", "notify", "sweep_refund", "sweep_refund"),
    ("pay:shy", "open_page", "pay:sure", "wallet:1", "wallet", "notify", "sweep_refund", "settle_refund", "notify"),
    ("pay:shy", "pay:sure", "pay:shy", "wallet", "notify"),
    ("pay:shy", "open_page", "pay:sure", "wallet:1", "wallet", "notify"),
    ("pay:sure", "pay:hold", "wallet", "sweep_poll", "notify"),
    ("pay:hold", "wallet", "sweep_poll", "notify"),
    ("pay:hold", "wallet", "switch", "wallet", "notify", "sweep_poll"),
    ("pay", "begin", "switch", "wallet:1", "notify"),
    ("pay", "begin", "cancel", "decline", "notify"),
    ("pay", "wallet", "second_capture", "notify", "sweep_refund", "sweep_refund"),
    ("pay", "wallet", "notify", "second_capture", "lose"),
    ("pay", "amend:500", "pay", "force:1", "wallet", "notify"),
    ("pay", "wrong_amount", "notify", "sweep_refund", "pay", "wallet", "notify"),
    ("pay", "wrong_currency", "notify", "switch", "wallet", "notify"),
    ("pay", "cancel", "force", "notify", "sweep_refund"),
    ("pay", "cancel", "force", "lose"),
    ("pay", "late", "force", "notify", "sweep_refund", "settle_refund"),
    ("pay", "late", "force", "lose"),
    ("pay", "switch", "late"),
    ("pay", "wallet", "notify", "ask_refund", "judge_refund:approve", "sweep_refund", "settle_refund", "notify"),
    ("pay", "wallet", "notify", "ask_refund", "sweep_refund", "ask_refund", "judge_refund", "settle_refund", "notify"),
    (
        "pay",
        "wallet",
        "notify",
        "ask_refund:1000",
        "judge_refund:approve",
        "judge_refund:approve",
        "sweep_refund",
        "notify",
    ),
    ("pay", "wallet", "notify", "money_leaves", "notify"),
    ("pay", "switch", "switch", "switch", "wallet:2", "notify"),
    ("pay",),
    # People decide about money of which a part is on its way, came back, or left by another way.
    ("pay", "wrong_amount", "notify", "ask_refund", "decide", "sweep_refund", "settle_refund", "notify", "decide"),
    ("pay", "switch", "wallet", "force:1", "notify", "ask_refund", "decide", "sweep_refund", "judge_refund", "decide"),
    ("pay", "wallet", "second_capture", "notify", "decide", "judge_refund", "ask_refund", "settle_refund", "decide"),
    (
        "pay",
        "late",
        "force",
        "notify",
        "ask_refund",
        "decide",
        "sweep_refund",
        "settle_refund",
        "judge_refund",
        "decide",
    ),
    ("pay", "wrong_amount", "notify", "ask_refund", "money_leaves", "notify", "settle_refund", "decide", "ask_refund"),
    ("pay", "late", "force", "notify", "money_leaves", "decide", "sweep_refund", "notify", "judge_refund", "decide"),
)
NOISE = (
    "pay_again", "switch", "pay", "keyed", "open_page", "notify", "notify:all", "notify:twice", "notify:reversed", "forge",
    "stale", "orphan", "lose", "look", "look", "cache", "cache", "cache:turn", "settle_refund", "decide", "parked", "ask_refund",
    "judge_refund", "amend", "place", "decline", "begin", "money_leaves", "wallet", "force",
)  # fmt: skip
NOISE_SHARE = 0.15


def new_tale(dice: random.Random, reference: str) -> Tale:
    """An order with its plot."""
    plot = ["place"]
    for act in dice.choice(PLOTS):
        plot.append(act)
        if dice.random() < NOISE_SHARE:
            plot.append(dice.choice(NOISE))
    if dice.random() < 0.3:
        plot.append("decide")
    life = 60 if "late" in plot else dice.choice([900, 900, 900, 1800, None, 60])
    return Tale(reference, dice.choice([1000, 1000, 500]), life, deque(plot))
