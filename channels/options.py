"""The options of an account: read once with clear errors, and judged by the same rules in system checks.

An adapter lists its options as `Option` records in `Channel.option_specs`. `problems_of` tells everything that is
wrong; `read_options` raises for the first of it. Both use the same code, so a check never passes what the adapter then
refuses.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from payonce.channels.errors import ChannelConfigError

SECRET_CHARACTERS_MIN = 32
LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an account's options.

    `id` is the suffix of the check's id: a letter E (error) or W (warning) and a number. `deploy_only` marks what only
    `check --deploy` reports.
    """

    id: str
    message: str
    hint: str
    account: str
    deploy_only: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """One option of an adapter. `validate` returns what is wrong with a value, or an empty text."""

    name: str
    validate: Callable[[Any], str]
    required: bool = False
    default: Any = None
    hint: str = ""
    secret: bool = False


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """' Did you mean "x"?', or an empty text."""
    match = get_close_matches(word, list(known), n=1)
    return f' Did you mean "{match[0]}"?' if match else ""


def listed(words: Sequence[str]) -> str:
    """The words, quoted and sorted, for an error message."""
    return ", ".join(f'"{word}"' for word in sorted(words)) or "none"


def problems_of(account: str, specs: Sequence[Option], options: Mapping[str, Any]) -> Iterator[Problem]:
    """Everything that is wrong with these options. An adapter without specs accepts any option."""
    where = f'PAYONCE["CHANNELS"]["{account}"]'
    if not specs:
        return
    known = [spec.name for spec in specs]
    for name in options:
        if name != "adapter" and name not in known:
            yield Problem("E104", f'{where} has the unknown option "{name}".{did_you_mean(str(name), known)}',
                          f"Known options: {listed(known)}.", account)  # fmt: skip
    for spec in specs:
        value = options.get(spec.name)
        if value is None or value == "":
            if spec.required:
                yield Problem("E105", f'{where} has no "{spec.name}".', spec.hint, account)
        elif fault := spec.validate(value):
            identifier = "E106" if spec.secret else "E107"
            yield Problem(identifier, f'{where}["{spec.name}"] {fault}.', spec.hint, account)
        elif spec.name == "base_url" and not is_safe_base_url(value):
            yield Problem("E108", f'{where}["base_url"] is not https.',
                          "Requests and answers would travel readable. Use https outside your own machine.", account,
                          deploy_only=True)  # fmt: skip


def read_options(account: str, specs: Sequence[Option], options: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every option, defaults filled in. Raises ChannelConfigError for the first problem."""
    for problem in problems_of(account, specs, options):
        if not problem.deploy_only:
            raise ChannelConfigError(f"{problem.message} {problem.hint}".strip())
    return {spec.name: spec.default if options.get(spec.name) in (None, "") else options[spec.name] for spec in specs}


def is_safe_base_url(value: str) -> bool:
    """True for https, and for http to this machine."""
    parts = urlsplit(value)
    return parts.scheme == "https"


def is_text(value: Any) -> str:
    """A text without line breaks."""
    return "" if isinstance(value, str) and value.isprintable() else "must be a text"


def is_secret(value: Any) -> str:
    """A text that is long enough to be a key."""
    if not isinstance(value, str) or not value.isprintable():
        return "must be a text"
    if len(value) < SECRET_CHARACTERS_MIN:
        return f"has {len(value)} characters; at least {SECRET_CHARACTERS_MIN} are needed"
    return "" if len(set(value)) >= 8 else "is too regular to be a secret"


def is_base_url(value: Any) -> str:
    """An absolute http(s) URL without query, fragment or password."""
    if not isinstance(value, str):
        return "must be a text"
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None
        usable = usable and (parts.port is None or 0 < parts.port < 65_536)
    except ValueError:
        usable = False
    return "" if usable and not parts.query and not parts.fragment else "must be an absolute http or https URL"


def is_flag(value: Any) -> str:
    """True or False, not something that looks like it."""
    return "" if isinstance(value, bool) else "must be True or False"


def is_integer(least: int, most: int) -> Callable[[Any], str]:
    """A whole number between both, a bool or a float refused."""

    def validate(value: Any) -> str:
        fits = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        return "" if fits else f"must be a whole number from {least} to {most}"

    return validate


def is_one_of(*choices: str) -> Callable[[Any], str]:
    """One of the listed texts."""

    def validate(value: Any) -> str:
        if isinstance(value, str) and value in choices:
            return ""
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        return f"must be one of {listed(choices)}{hint and ' (' + hint.strip() + ')'}"

    return validate


def is_mapping(value: Any) -> str:
    """Texts by name."""
    fits = isinstance(value, Mapping) and all(isinstance(item, str) for pair in value.items() for item in pair)
    return "" if fits else "must be a mapping from texts to texts"


def is_list_of(validate_one: Callable[[Any], str]) -> Callable[[Any], str]:
    """A non-empty list, tuple or set whose items all pass."""

    def validate(value: Any) -> str:
        if not isinstance(value, list | tuple | set | frozenset) or not value:
            return "must be a list with at least one item"
        return next((fault for item in value if (fault := validate_one(item))), "")

    return validate
