"""The stories, one module each, in the order of their letters: eight, and one for a site with the real channels' formats."""

from config.demo.stories import (
    all_channels,
    answer_lost,
    both_paid,
    double_click,
    late_payment,
    notification_lost,
    notification_storm,
    switched_wallet,
    worker_killed,
)

STORIES = (
    double_click.STORY,
    notification_lost.STORY,
    switched_wallet.STORY,
    both_paid.STORY,
    notification_storm.STORY,
    late_payment.STORY,
    worker_killed.STORY,
    answer_lost.STORY,
)
CHANNEL_STORIES = (all_channels.STORY,)
