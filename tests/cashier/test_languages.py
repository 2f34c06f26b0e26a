"""English and Simplified Chinese: every sentence of the page has both."""

import re
from pathlib import Path

import pytest
from django.utils import translation
from django.utils.translation.template import templatize

from payonce.payments.cashier.choices import method_name
from tests.cashier.conftest import Browser
from tests.factories import open_order, paid_stream

TEMPLATES = Path(__file__).resolve().parents[2] / "templates" / "payonce" / "cashier"


def sentences() -> set[str]:
    found = set()
    for path in TEMPLATES.glob("*.html"):
        code = templatize(path.read_text(), origin=str(path))
        found |= {match[1] for match in re.findall(r"pgettext\(u?'cashier', u?(['\"])(.*?)\1\)", code)}
        found |= {match[1] for match in re.findall(r"""pgettext\(['"]cashier['"],\s*u?(['"])(.*?)\1\)""", code)}
    return found


def test_every_sentence_has_a_translation():
    assert len(sentences()) > 40
    with translation.override("zh-hans"):
        missing = [text for text in sentences() if translation.pgettext("cashier", text) == text]
        assert not missing
        assert {method_name(name) for name in ("qr", "web", "h5")} == {
            "手机扫码",
            "在支付平台页面支付",
            "在手机浏览器中支付",
        }


@pytest.mark.parametrize("language", ["zh-CN,zh;q=0.9", "zh-Hans", "zh"])
def test_page_speaks_the_browsers_language(scripted, language):
    browser = Browser(open_order(), language=language)
    text = browser.open()
    assert "请选择支付方式" in text
    assert "¥10.00" in text
    assert '<html lang="zh-hans">' in browser.page.content.decode()
    assert "Accept-Language" in browser.page["Vary"]


def test_other_languages_get_english(scripted):
    assert "Your payment has arrived" in Browser(paid_stream().order, language="eo").open()
