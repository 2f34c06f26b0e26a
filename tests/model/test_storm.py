"""Storms: any batch of orders ends with each paid once, and a build that is broken on purpose does not get through one."""

import json
import os
import random
import re
import subprocess
import sys
from typing import Any

import pytest
from django.conf import settings as project

from payonce.payments import cache
from payonce.payments.pay import pay_order
from tests.clock import standing_clock
from tests.model.acts import Tale
from tests.model.bank import bank_here
from tests.model.redis_here import RedisHere
from tests.model.storm import Storm
from tests.model.storms import MODES, play_one, too_gentle
from tests.model.world import ACCOUNTS, NOON
from torture.sabotage import apply, copy_of_tree
from torture.saboteurs import BY_NAME

BROKEN = {
    "refunds-the-keeper": "M5",
    "second-capture-is-a-repeat": "M1",
    "time-out-is-a-failure": "S4",
    "message-marked-sent-before-it-was": "S11",
}


@pytest.mark.timeout(0)
@pytest.mark.parametrize("mode", MODES)
def test_any_storm_keeps_every_invariant(mode: str, transactional_db: None) -> None:
    """Every A invariant in the middle, every Q invariant once all is healed and at rest; each order met a fault."""
    batch = play_one(seed=1, number=0, mode=mode, size=25)
    assert not batch.violation, "\n".join([*batch.trace, batch.violation])
    assert batch.orders == batch.faulted >= 20
    assert batch.hardness["paid"] >= 5


@pytest.mark.timeout(0)
def test_the_same_seed_makes_the_same_storm(transactional_db: None) -> None:
    """Only the orders' numbers are new: they are drawn by the operating system."""
    first, second = (play_one(seed=2, number=3, mode="two-beats", size=8) for _ in range(2))
    number = re.compile(r"po[0-9a-z]{13}")
    assert len(first.trace) > 50
    assert [number.sub("", line) for line in first.trace] == [number.sub("", line) for line in second.trace]
    assert first.faults == second.faults


@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_build_is_caught(name: str, django_db_setup: None) -> None:
    """M5, M1, S4, S11: the judge of a storm is not blind."""
    with copy_of_tree() as tree:
        apply(BY_NAME[name], tree)
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "COV_", "PAYONCE_"))},
            "PYTHONPATH": str(tree), "DATABASE_URL": project.DATABASE_URL, "REDIS_URL": "",
        }  # fmt: skip
        command = [
            sys.executable,
            "-m",
            "tests.model.storms",
            "--json",
            "--seed",
            "5",
            "--orders",
            "400",
            "--size",
            "40",
        ]
        ended = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr[-2000:] or ended.stdout[-2000:]
    found = json.loads(ended.stdout)
    assert found["verdict"] == "VIOLATED"
    assert BROKEN[name] in found["violations"][0]["what"]


def test_who_is_killed_tells_nobody_any_more(transactional_db: None) -> None:
    """A turn that a killed process held is not ended by its `finally`: it runs out, as it would in Redis."""
    with bank_here(ACCOUNTS) as bank, standing_clock(NOON) as clock:
        storm = Storm(bank, clock, "1", orders=1)
        try:
            storm._begin()
            storm._is_over = True
            tale: Tale = storm.tales[0]
            storm.acts.place(tale)
            with storm.world.crash((4, "after", "kill")):
                pay_order(tale.number, "sure", "qr")
            assert storm.redis is not None
            assert storm.redis.get(f"payonce:gate:{tale.number}") is not None
            storm.world.advance(21)
            assert storm.redis.get(f"payonce:gate:{tale.number}") is None
        finally:
            storm._end()


def test_redis_in_process_answers_like_redis(redis_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cache asks of Redis has the same answers from the one that the storms use."""
    here = RedisHere(lambda: 0.0)

    def play(client: Any) -> list[Any]:
        monkeypatch.setattr(cache, "_client", lambda _url: client)
        said: list[Any] = []
        draw = random.Random(7)
        for _ in range(300):
            order, version = draw.choice("ab"), draw.randrange(5)
            match draw.randrange(6):
                case 0:
                    cache._put(order, version, f"{version}:signed:{{}}", 20_000)
                case 1:
                    cache.void(order, version + 1)
                case 2:
                    said.append(cache.take_turn(order) is None)
                case 3:
                    cache.end_turn(order, draw.choice(["", "somebody else's"]))
                case 4:
                    said.append(client.get(cache._key(order)))
                case _:
                    held = client.get(cache._gate(order))
                    cache.end_turn(order, held.decode() if held else "")
        return said

    assert play(here) == play(redis_client)


def test_a_long_run_that_was_too_gentle_says_what_it_never_met() -> None:
    found: dict[str, Any] = {"orders": 5000, "faults": {"kill before fly": 1}, "hardness": {"paid": 4}}
    missing = too_gentle(found)
    assert {"kill after fly", "channel: late", "duplicates"} <= set(missing)
    assert not {"kill before fly", "paid"} & set(missing)
