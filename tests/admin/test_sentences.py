"""Whatever a step writes into a case, the console says in the reader's language."""

import ast
import re
from pathlib import Path

import pytest
from django.utils.translation import override

from payonce.channels.messages import RefundState as RefundAnswer
from payonce.payments import reconcile
from payonce.payments.admin import sentences, words
from payonce.payments.policy import PolicyAnswer
from payonce.payments.settle import Settled

PAYMENTS = Path(__file__).resolve().parents[2] / "payments"
WRITERS = {"open_case", "new_alone", "hand_to_person", "hand_cases_over", "to_person", "resolve", "Finding", "_case"}
CONTRADICTIONS = {"settle.py": "7s01 {}: 7s01.", "refund_answer.py": "Refund 7s01: {}."}


def _text(node: ast.AST) -> str | None:
    """What a literal or an f-string comes to, with a number for each fact."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "7s01" for part in node.values)  # type: ignore[misc]
    return None


def _written() -> list[str]:
    """Every sentence that a step hands to a case, found in the code: literal arguments, and variables called text, summary or why."""
    found = []
    for path in sorted(PAYMENTS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            texts: list[str] = []
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name in WRITERS:
                    texts = [text for arg in node.args if (text := _text(arg))]
                elif name == "_contradict":
                    says = [text for arg in node.args if (text := _text(arg))]
                    texts = [CONTRADICTIONS[path.name].format(text) for text in says]
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("text", "summary"):
                texts = [text for text in [_text(node.value)] if text]
            found += [
                text
                for text in texts
                if " " in text
                and len(re.findall("[a-z]+", text.replace("7s01", "").lower())) > 1
                and not text.startswith(("SELECT", "INSERT", "UPDATE", "WITH"))
            ]
    return found


def test_the_search_finds_the_sentences() -> None:
    assert len(_written()) > 25
    assert "refunded under 7s01" in _written()


@pytest.mark.parametrize(
    "text", sorted({*_written(), *(f"7s01 {text}." for _sql, text in reconcile.FINDINGS.values())})
)
def test_every_sentence_of_a_case_is_said_in_chinese(text: str) -> None:
    with override("zh-hans"):
        said = sentences.in_own_language(text)
    assert said != text
    assert any(character > "⺀" for character in said)
    assert said.count("7s01") == text.count("7s01")


@pytest.mark.parametrize("why", [answer.value for answer in PolicyAnswer if answer is not PolicyAnswer.ALLOWED])
def test_why_a_refund_was_not_sent_is_said_in_chinese(why: str) -> None:
    with override("zh-hans"):
        assert why not in sentences.in_own_language(f"7s01rd1 was not sent: {why}.")
    with override("en"):
        assert sentences.in_own_language(f"7s01rd1 was not sent: {why}.") == f"7s01rd1 was not sent: {why}."


@pytest.mark.parametrize(("text", "said"), [("message pending", "消息已重新发送"), ("message skipped", "消息已跳过")])
def test_what_a_person_did_about_a_message_is_said_in_chinese(text: str, said: str) -> None:
    with override("zh-hans"):
        assert sentences.in_own_language(text) == said


def test_a_persons_own_words_stay_as_they_are() -> None:
    with override("zh-hans"):
        assert sentences.in_own_language("I called the bank. It is fine.") == "I called the bank. It is fine."


@pytest.mark.parametrize("result", [*Settled, *RefundAnswer])
def test_what_a_notification_came_to_has_words(result: str) -> None:
    assert words.say("result", result) != result
