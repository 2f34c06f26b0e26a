"""The sentences that steps write into cases, in the reader's language. The row keeps what was written, as evidence."""

import re
from functools import cache

from django.utils import translation
from django.utils.translation import gettext_noop

SENTENCES = (
    # Payments.
    gettext_noop("%(account)s reports %(number)s for %(merchant)s, but it is a stream of %(other)s."),
    gettext_noop("%(account)s gave no final answer about %(number)s (last: %(answer)s)."),
    gettext_noop("%(account)s spoke of %(number)s, which had ended, and does not answer what became of it."),
    gettext_noop("%(account)s now reports another amount for %(number)s."),
    gettext_noop("%(account)s gave %(amount)s (minor units) of %(number)s back without us."),
    gettext_noop("%(number)s is disputed or reversed at %(account)s."),
    gettext_noop("%(account)s says paid without an amount: %(number)s."),
    gettext_noop("%(account)s says paid without an amount under %(reference)s: %(number)s."),
    gettext_noop("%(account)s says closed and never paid: %(number)s."),
    gettext_noop("%(account)s says %(answer)s about money that it had confirmed: %(number)s."),
    gettext_noop("%(account)s says open after it proved it closed: %(number)s."),
    gettext_noop("%(account)s says that money is on its way for a stream that had ended: %(number)s."),
    gettext_noop("What %(account)s answers about %(number)s cannot be applied: see the log."),
    gettext_noop("%(account)s reports %(amount)s (minor units) under %(number)s, which is no stream of ours."),
    gettext_noop("%(number)s took %(amount)s (minor units) that order %(order)s does not need: %(reason)s."),
    gettext_noop("answered: %(answer)s"),
    gettext_noop("Notification %(key)s of %(account)s cannot be applied: %(words)s"),
    # Refunds.
    gettext_noop("Refund %(number)s: the channel reports %(amount)s for it."),
    gettext_noop(
        "Refund %(number)s: it was given up here and is done at the channel, and other refunds used the money."
    ),
    gettext_noop("%(number)s failed at the channel (%(answer)s): retry it, or write it off."),
    gettext_noop("The channel refused %(number)s (%(answer)s)."),
    gettext_noop("%(number)s needs a person at the channel (%(answer)s)."),
    gettext_noop("%(number)s came back from the buyer's bank: give the money back another way."),
    gettext_noop("%(number)s gets nowhere (%(answer)s): look it up at the channel."),
    gettext_noop("%(number)s gave back a part: decide about the rest."),
    gettext_noop("%(number)s was not sent: %(why)s."),
    gettext_noop("%(number)s cannot be carried out: see the log."),
    gettext_noop("%(number)s was declined: %(words)s"),
    gettext_noop("%(number)s was taken back by %(who)s."),
    gettext_noop("refunded under %(number)s"),
    # Messages to the shop.
    gettext_noop("%(listener)s was not told %(event)s of %(order)s: %(words)s"),
    gettext_noop("message pending"),
    gettext_noop("message skipped"),
    # Statements.
    gettext_noop("%(account)s lists %(amount)s (minor units) for %(number)s in its statement; here it took %(ours)s."),
    gettext_noop("%(account)s lists %(amount)s (minor units) given back under %(number)s; here it is %(state)s."),
    gettext_noop("%(account)s lists %(amount)s (minor units) given back of %(number)s, which is no stream of ours."),
    gettext_noop("%(number)s is done here, and the statements of %(account)s around that day do not name it."),
    gettext_noop("The statement of %(account)s for %(day)s cannot be had or compared: %(words)s"),
    gettext_noop("fetched and compared"),
    gettext_noop(
        "%(account)s lists %(count)s more lines of %(day)s under numbers like ours that nobody here knows:"
        ' does another installation use the account? Give each its own PAYONCE["NUMBER_PREFIX"].'
    ),
    # Our own rows.
    gettext_noop("%(number)s took surplus money, and there is no case about it."),
    gettext_noop("%(number)s is the keeper of its order, and its row does not say so."),
    gettext_noop("%(number)s says that it is the keeper, and its order does not."),
    gettext_noop("%(number)s reserves another sum than its refunds."),
    gettext_noop("%(number)s is not finished, and nothing will ask about it."),
    gettext_noop("%(number)s is not finished, and nothing will carry it on."),
    gettext_noop("%(number)s has a case that says it is being repaired, and no refund that repairs it."),
    gettext_noop('%(number)s is due, and its account is no longer in PAYONCE["CHANNELS"]: nobody asks about it.'),
    gettext_noop("%(number)s was paid for the same basket by the same buyer as %(other)s."),
)
PHRASES = frozenset({
    gettext_noop("duplicate"), gettext_noop("late payment"), gettext_noop("mismatched"), gettext_noop("second capture"),
    gettext_noop("none"), gettext_noop("no code"), gettext_noop("itself"),
    gettext_noop("keeper"),
    gettext_noop("automatic refunds are off"), gettext_noop("larger than the cap of one automatic refund"),
    gettext_noop("the account's budget of this day is used up"), gettext_noop("dry run"),
    gettext_noop("the channel cannot refund: give the money back there by hand"),
    gettext_noop("the channel's refund window is over: give the money back by other means"),
    gettext_noop("the channel shows a dispute, a reversal or a refund that we did not make"),
})  # fmt: skip
"""What stands in a sentence for a fact, and is said in words too."""
_PLACE = re.compile(r"%\((\w+)\)s")


def in_own_language(text: str) -> str:
    """What a step wrote, in the reader's language; a person's own words stay as they are."""
    for template, pattern in _patterns():
        found = pattern.fullmatch(text)
        if found is not None:
            facts = {
                name: translation.gettext(value) if value in PHRASES else value
                for name, value in found.groupdict().items()
            }
            return translation.gettext(template) % facts if facts else translation.gettext(template)
    return text


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    """Each template with what it looks like once its facts are in; the one with the most words of its own first."""
    ordered = sorted(SENTENCES, key=lambda template: -len(_PLACE.sub("", template)))
    return [(template, re.compile(_expression(template), re.DOTALL)) for template in ordered]


def _expression(template: str) -> str:
    parts = _PLACE.split(template)
    return "".join(f"(?P<{part}>.+?)" if index % 2 else re.escape(part) for index, part in enumerate(parts))
