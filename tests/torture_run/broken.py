"""A broken build: surplus money is never given back, and a channel's signature is never looked at."""

from django.apps import AppConfig


class Broken(AppConfig):
    """Breaks payonce in every process that loads it."""

    name = "tests.torture_run"
    label = "torture_run_broken"

    def ready(self) -> None:
        """Put the wrong parts in."""
        from payonce.channels.sandbox import adapter
        from payonce.channels.signing import SignatureVerdict
        from payonce.payments import surplus

        surplus.take_in = lambda work, stream, *, automatic: None  # type: ignore[assignment]
        adapter.verify_notification = lambda *args, **kwargs: SignatureVerdict.GOOD  # type: ignore[assignment]
