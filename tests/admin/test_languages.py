"""The console speaks English and Simplified Chinese: no text of it, of the models or of the states is left untranslated."""

import ast
import gettext
import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils.translation import override

from payonce.payments.admin import PAGES
from payonce.payments.amounts import AmountError, exponent_of, to_minor, to_plain, to_text
from tests.admin.conftest import action_of, duplicate, list_of, page_of

CHECKOUT = Path(__file__).resolve().parents[2]
CALLS = {"_", "gettext", "gettext_lazy", "ngettext"}
SOURCES = {
    "orders": ["orders/models.py", "orders/statuses.py", "orders/apps.py"],
    "payments": ["payments/admin", "payments/models", "payments/statuses.py", "payments/apps.py"],
}
TAGS = re.compile(r"""\{%\s*translate\s+(?:"([^"]+)"|'([^']+)')""")
FIELDS = re.compile(r"%\((\w+)\)")


def catalogue(app: str) -> Any:
    with (CHECKOUT / app / "locale/zh_Hans/LC_MESSAGES/django.mo").open("rb") as file:
        return gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]


def texts_of(app: str) -> set[str]:
    found = set[str]()
    for name in SOURCES[app]:
        path = CHECKOUT / name
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
                    first = node.args[0]
                    assert isinstance(first, ast.Constant), f"{file}:{node.lineno}"
                    found.add(first.value)
    if app == "payments":
        for file in (CHECKOUT / "templates/payonce/admin").rglob("*.html"):
            found |= {one or two for one, two in TAGS.findall(file.read_text())}
    return found


@pytest.mark.parametrize("app", SOURCES)
def test_no_text_is_untranslated(app: str) -> None:
    known, texts = catalogue(app), texts_of(app)
    assert len(texts) > 20
    assert not {text for text in texts if not known.get(text) and not known.get((text, 0))}


@pytest.mark.parametrize("app", SOURCES)
def test_a_translation_has_the_fields_of_its_text(app: str) -> None:
    for key, translated in catalogue(app).items():
        text = key[0] if isinstance(key, tuple) else key
        if text:
            assert set(FIELDS.findall(translated)) == set(FIELDS.findall(text)), text


def test_every_page_opens_in_chinese(superuser: Client) -> None:
    keeper, _, case = duplicate()
    superuser.cookies["django_language"] = "zh-hans"
    html = superuser.get(page_of(keeper.order)).content.decode()
    for text in (f"订单 {keeper.order.number}", "★ 入账流水", "哈希链校验通过", "已付款"):
        assert text in html
    for model in PAGES:
        assert superuser.get(list_of(model)).status_code == 200
    assert "无法撤销" in superuser.get(action_of(keeper, "refund")).content.decode()
    assert "差异单" in superuser.get(page_of(case)).content.decode()


# Amounts in any language.


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [(1500, "JPY", "1,500 JPY"), (1500, "KWD", "1.500 KWD"), (123456789, "CNY", "1,234,567.89 CNY"), (1, "IQD", "0.001 IQD"),
     (10**12, "EUR", "10,000,000,000.00 EUR"), (5, "CLF", "0.0005 CLF"), (0, "USD", "0.00 USD"), (-250, "EUR", "-2.50 EUR")],
)  # fmt: skip
def test_an_amount_is_written_with_the_currencys_exact_decimals(amount: int, currency: str, shown: str) -> None:
    assert to_text(amount, currency) == shown
    with override("zh-hans"):
        assert to_text(amount, currency) == shown


@pytest.mark.parametrize("currency", ["JPY", "CNY", "KWD", "CLF"])
@pytest.mark.parametrize("amount", [0, 1, 7, 99, 100, 12345, 10**12])
def test_what_is_written_is_read_back(amount: int, currency: str) -> None:
    assert to_minor(to_plain(amount, currency), currency) == amount
    assert exponent_of(currency) == {"JPY": 0, "CNY": 2, "KWD": 3, "CLF": 4}[currency]


@pytest.mark.parametrize("typed", ["1.5", "", "-1", "+1", "1e2", "1_000", "１", "1,0", "0x10", ".5", "1."])
def test_what_is_no_plain_amount_of_yen_is_refused(typed: str) -> None:
    with pytest.raises(AmountError):
        to_minor(typed, "JPY")
