"""The page in a real browser: its policy lets its own script run, and it shows a payment by itself."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from payonce.payments import tokens
from payonce.payments.cashier import views
from tests.factories import apply, open_order, pending_stream, view_of

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")]
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--hide-scrollbars", "--enable-logging=stderr", "--v=0",
]  # fmt: skip


def run(url: str, profile: Path, *arguments: str) -> tuple[str, str]:
    """What the page is after its script ran, and what the browser complained about."""
    command = [CHROMIUM, *QUIET, f"--user-data-dir={profile}", *arguments, url]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=True, env={**os.environ, "LANG": "C.UTF-8"}
    )
    return done.stdout, done.stderr


def address(live_server, order) -> str:
    return f"{live_server.url}/cashier/{tokens.sign_buyer_token(order.number)}/"


def test_page_shows_a_payment_by_itself(scripted, live_server, tmp_path, monkeypatch):
    """L1: the script polls, sees the change and renews the page; the policy blocks nothing of it."""
    stream = pending_stream()
    polls = []

    def pay_on_second_poll(standing):
        polls.append(standing.order.state)
        if len(polls) == 2:
            apply(stream, view_of(stream))

    monkeypatch.setattr(views, "_nudge", pay_on_second_poll)
    page, said = run(address(live_server, stream.order), tmp_path, "--virtual-time-budget=20000", "--dump-dom")
    assert "Your payment has arrived" in page
    assert "Content Security Policy" not in said
    assert "Uncaught" not in said
    assert len(polls) >= 2


def test_page_is_drawn_at_the_width_of_a_phone(scripted, live_server, tmp_path):
    picture = tmp_path / "page.png"
    stream = pending_stream(open_order(subject="红楼梦 · A novel in 120 chapters"))
    run(
        address(live_server, stream.order), tmp_path / "profile", "--window-size=500,1000", f"--screenshot={picture}",
        "--virtual-time-budget=1500",
    )  # fmt: skip
    assert picture.stat().st_size > 10_000
    keep = os.environ.get("PAYONCE_PICTURES")
    if keep:
        shutil.copy(picture, Path(keep) / "cashier.png")
