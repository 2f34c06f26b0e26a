"""The catalogues are whole: every text is translated with its placeholders, and what is compiled is what is written."""

import re
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po

CHECKOUT = Path(__file__).resolve().parents[2]
APPS = ("orders", "payments")
PLACEHOLDERS = re.compile(r"%\(\w+\)[a-z]|%[sd]|\{\w*\}")
TAGS = re.compile(r"</?\w[^>]*>")


def written(app: str) -> Catalog:
    with (CHECKOUT / app / "locale/zh_Hans/LC_MESSAGES/django.po").open("rb") as file:
        return read_po(file, locale="zh_Hans")


def compiled(app: str) -> Catalog:
    with (CHECKOUT / app / "locale/zh_Hans/LC_MESSAGES/django.mo").open("rb") as file:
        return read_mo(file)


def texts(value: object) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (str(value),)


def messages(catalogue: Catalog) -> list[Message]:
    return [message for message in catalogue if message.id]


def content(catalogue: Catalog) -> dict[tuple[str | None, tuple[str, ...]], tuple[str, ...]]:
    return {(message.context, texts(message.id)): texts(message.string) for message in messages(catalogue)}


def ends(text: str) -> tuple[bool, bool]:
    return text.startswith("\n"), text.endswith("\n")


def faults(catalogue: Catalog) -> list[str]:
    """Return what is wrong with the catalogue, a line for each message."""
    found = []
    for message in messages(catalogue):
        original, translated = texts(message.id), texts(message.string)
        if message.fuzzy or not all(translated):
            found.append(f"untranslated: {original[0]}")
        for text in translated:
            if any(set(marks.findall(text)) != set(marks.findall(original[-1])) for marks in (PLACEHOLDERS, TAGS)):
                found.append(f"placeholders: {original[0]}")
            if ends(text) != ends(original[0]):
                found.append(f"newlines: {original[0]}")
    return found


@pytest.mark.parametrize("app", APPS)
def test_every_message_is_translated_with_its_placeholders(app: str) -> None:
    catalogue = written(app)
    assert len(messages(catalogue)) > 30
    assert catalogue.num_plurals == 1
    assert faults(catalogue) == []


@pytest.mark.parametrize("app", APPS)
def test_what_is_compiled_is_what_is_written(app: str) -> None:
    fresh = BytesIO()
    write_mo(fresh, written(app))
    fresh.seek(0)
    assert content(compiled(app)) == content(read_mo(fresh))


@pytest.mark.parametrize(
    ("original", "translated", "fault"),
    [
        ("Order", "", "untranslated"),
        ("%(amount)s is left", "剩余", "placeholders"),
        ("%(count)d rows", "%(count)s 行", "placeholders"),
        ("{name} is here", "{nome} 在此", "placeholders"),
        ("<b>Paid</b>", "<b>已付款", "placeholders"),
        ("\nPaid", "已付款", "newlines"),
    ],
)
def test_a_fault_is_found(original: str, translated: str, fault: str) -> None:
    catalogue = Catalog(locale="zh_Hans")
    catalogue.add(original, translated)
    assert fault in {line.partition(":")[0] for line in faults(catalogue)}
