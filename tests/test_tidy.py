"""House rules as a test: who may assign a state, lock a row, open a socket, enqueue a task or run raw SQL, and sizes.

Every rule also catches a violation that is shown to it here, so that a rule that checks nothing cannot pass.
"""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PRODUCT = ("orders/", "payments/", "channels/")
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 400
BINARY = {".mo", ".png", ".ico", ".woff2", ".jpg", ".gif", ".whl", ".gz"}


@dataclass(frozen=True)
class Source:
    """One file of the checkout: its path from the top, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Return the syntax tree."""
        return ast.parse(self.text)

    @property
    def name(self) -> str:
        """Return the file's name without its ending."""
        return Path(self.path).stem

    @property
    def is_python(self) -> bool:
        """Return whether this is Python that a person wrote."""
        return self.path.endswith(".py") and "/migrations/" not in self.path

    @property
    def is_product(self) -> bool:
        """Return whether this is Python that goes into the wheel."""
        return self.is_python and self.path.startswith(PRODUCT)

    def is_module(self, name: str) -> bool:
        """Return whether this is the module of that name, or part of the package of that name."""
        return self.name == name or f"/{name}/" in self.path

    def calls(self) -> Iterator[tuple[ast.Call, str]]:
        """Yield every call with the last part of what is called."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                function = node.func
                if isinstance(function, ast.Attribute):
                    yield node, function.attr
                elif isinstance(function, ast.Name):
                    yield node, function.id

    def imports(self) -> Iterator[tuple[int, str]]:
        """Yield every imported module; `from a import b` yields both `a` and `a.b`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield node.lineno, node.module
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)

    def assigned(self) -> Iterator[ast.expr]:
        """Yield everything that is assigned to."""
        for node in ast.walk(self.tree):
            targets: list[ast.expr] = []
            if isinstance(node, ast.Assign):
                targets = node.targets
            elif isinstance(node, ast.AugAssign | ast.AnnAssign):
                targets = [node.target]
            for target in targets:
                yield from target.elts if isinstance(target, ast.Tuple) else [target]

    def strings(self) -> Iterator[tuple[int, str]]:
        """Yield every string that is not a docstring."""
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield node.lineno, node.value


Problems = Iterator[tuple[int, str]]
Rule = Callable[[Source], Problems]


# A stored notification and a message to the shop are work in a queue: done or not done. No money moves by it.
QUEUES = {"payments/inbox.py", "payments/message_rows.py"}


def only_transitions_assign_a_state(source: Source) -> Problems:
    """A state changes in one place, where the arrow, the refusals and the event are."""
    if not source.is_product or source.path.startswith("channels/") or source.is_module("transitions"):
        return
    for target in source.assigned() if source.path not in QUEUES else ():
        if isinstance(target, ast.Attribute) and target.attr == "state":
            yield target.lineno, "assigns a .state"
    for call, name in source.calls():
        if name in {"update", "create", "Order", "Stream", "Refund", "Discrepancy"}:
            if any(keyword.arg == "state" for keyword in call.keywords):
                yield call.lineno, f"{name}(state=…)"
        elif name == "setattr" and len(call.args) > 1 and getattr(call.args[1], "value", "") == "state":
            yield call.lineno, 'setattr(…, "state", …)'
    for line, text in source.strings() if source.path not in QUEUES else ():
        if re.search(r"\bSET\s+state\b", text):
            yield line, "SQL that sets a state"


def only_locks_lock_rows(source: Source) -> Problems:
    """Row locks and their order have one home per app; a claim that skips locked rows waits for nobody and is free."""
    if not source.is_product or source.is_module("locks"):
        return
    for call, name in source.calls():
        if name == "select_for_update":
            yield call.lineno, "calls select_for_update"
    for line, text in source.strings():
        if re.search(r"FOR (NO KEY )?UPDATE\b(?!\s+(OF\s+\w+\s+)?SKIP LOCKED)", text):
            yield line, "locks rows in SQL"


NETWORK = {
    "socket", "urllib3", "aiohttp", "requests", "httpx", "http.client", "urllib.request", "smtplib", "ftplib",
    "websockets", "asyncio.open_connection", "asyncio.start_server",
}  # fmt: skip


def only_drivers_open_sockets(source: Source) -> Problems:
    """Adapters say what to send; the two drivers send it. The sandbox's server is a program of its own."""
    driver = source.path.startswith("channels/http/")
    server = source.path.startswith("channels/sandbox/") and source.name not in {"adapter", "__init__"}
    if not source.is_product or driver or server:
        return
    for line, module in source.imports():
        if module in NETWORK:
            yield line, f"imports {module}"
    for call, name in source.calls():
        if name in {"open_connection", "start_server", "create_connection", "urlopen"}:
            yield call.lineno, f"calls {name}"


def only_enqueue_enqueues(source: Source) -> Problems:
    """A task is a nudge that may be lost; one module knows how to lose it."""
    if not source.is_product or source.path == "payments/enqueue.py":
        return
    for call, name in source.calls():
        if name in {"delay", "apply_async", "send_task"}:
            yield call.lineno, f"calls {name}"


def only_flight_runs_raw_sql(source: Source) -> Problems:
    """Raw statements mark the transaction for rollback on any error; a cursor elsewhere would not."""
    if not source.is_product or source.path in {"payments/flight.py", "orders/locks.py"}:
        return
    if source.path.startswith("channels/sandbox/") and source.name != "adapter":
        return  # the sandbox server's own SQLite ledger
    for call, name in source.calls():
        is_a_commands_own = name == "execute" and ast.unparse(call.func) == "super().execute"
        if name in {"cursor", "execute", "executemany", "raw", "RawSQL", "Cursor"} and not is_a_commands_own:
            yield call.lineno, f"calls {name}"
    for line, module in source.imports():
        if module.split(".")[0] in {"psycopg", "sqlite3"}:
            yield line, f"imports {module}"


def channels_know_no_models(source: Source) -> Problems:
    """An adapter is a wire format and a code table; whoever uses it has the rows."""
    if not (source.is_product and source.path.startswith("channels/")):
        return
    for line, module in source.imports():
        if module.startswith(("django.db", "payonce.orders", "payonce.payments", "django.contrib")):
            yield line, f"imports {module}"


def packages_are_reached_through_payonce(source: Source) -> Problems:
    """`payments` alone may be the shop's own app."""
    if source.is_python and not source.path.startswith("tests/packaging/project/"):  # a shop with such apps
        for line, module in source.imports():
            if module.split(".")[0] in {"orders", "payments", "channels"}:
                yield line, f"imports {module}; write payonce.{module}"


def functions_are_short(source: Source) -> Problems:
    """What does not fit on a screen is not understood in one look."""
    if not (source.is_product or (source.is_python and source.path.startswith("config/"))):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield node.lineno, f"{node.name} has {lines} lines"


def files_are_short(source: Source) -> Problems:
    """One file per step; a step that does not fit has two."""
    if source.is_product or (source.is_python and source.path.startswith("config/")):
        lines = source.text.count("\n")
        if lines > FILE_LINES_MAX:
            yield FILE_LINES_MAX, f"has {lines} lines"


def files_are_named_by_what_they_hold(source: Source) -> Problems:
    """A file called utils collects what nobody thought about."""
    if source.name.lower() in {"utils", "util", "helpers", "helper", "common", "misc"}:
        yield 1, "is named by nothing it holds"


# Put together here so that this file does not name what it forbids.
REGISTRY = re.compile(
    "|".join(["py" + r"pi\.org", "python" + r"hosted", "npm" + r"js\.", "deb" + r"\.debian", "crates" + r"\.io"])
)
MACHINE = re.compile(r"(?<![\w.])/(work|root|home|Users)" + r"/\w")


def no_registry_is_named(source: Source) -> Problems:
    """Where packages come from is the installing machine's business."""
    for number, line in enumerate(source.text.splitlines(), 1):
        if REGISTRY.search(line):
            yield number, "names a package registry's host"


def no_machine_path_is_named(source: Source) -> Problems:
    """What works only on one machine works on no other."""
    for number, line in enumerate(source.text.splitlines(), 1):
        if MACHINE.search(line):
            yield number, "names a path of one machine"


RULES: dict[Rule, list[Source]] = {
    only_transitions_assign_a_state: [
        Source("payments/pay.py", "stream.state = StreamState.CLOSED\n"),
        Source("payments/pay.py", "stream.number, stream.state = 1, 2\n"),
        Source("orders/place.py", 'setattr(order, "state", "PAID")\n'),
        Source("payments/api/views.py", "Order.objects.filter(pk=1).update(state='PAID')\n"),
        Source("payments/poll.py", "sql = 'UPDATE payonce_stream SET state = 1'\n"),
        Source("payments/inbox.py", "Discrepancy(state='OPEN')\n"),
    ],
    only_locks_lock_rows: [
        Source("payments/settle.py", "Order.objects.select_for_update().get(pk=1)\n"),
        Source("payments/settle.py", "sql = 'SELECT 1 FROM payonce_order FOR UPDATE'\n"),
    ],
    only_drivers_open_sockets: [
        Source("payments/publish.py", "import urllib3\n"),
        Source("channels/alipay.py", "from http.client import HTTPSConnection\n"),
        Source("channels/sandbox/adapter.py", "import aiohttp\n"),
        Source("payments/poll.py", "import asyncio\nasyncio.open_connection('x', 1)\n"),
    ],
    only_enqueue_enqueues: [
        Source("payments/notify.py", "publish.delay(1)\n"),
        Source("payments/notify.py", "current_app.send_task('x')\n"),
    ],
    only_flight_runs_raw_sql: [
        Source("payments/poll.py", "with connection.cursor() as cursor: cursor.execute('SELECT 1')\n"),
        Source("payments/admin/orders.py", "Order.objects.raw('SELECT 1')\n"),
        Source("payments/pay.py", "from psycopg import sql\n"),
    ],
    channels_know_no_models: [
        Source("channels/base.py", "from django.db import models\n"),
        Source("channels/stripe.py", "from payonce.orders.models import Order\n"),
    ],
    packages_are_reached_through_payonce: [Source("config/urls.py", "from payments import urls\n")],
    functions_are_short: [Source("payments/pay.py", "def pay():\n" + "    x = 1\n" * FUNCTION_LINES_MAX)],
    files_are_short: [Source("payments/pay.py", "x = 1\n" * (FILE_LINES_MAX + 1))],
    files_are_named_by_what_they_hold: [Source("payments/utils.py", ""), Source("tests/helpers.py", "")],
    no_registry_is_named: [Source("requirements/dev.txt", "--index-url https://" + "py" + "pi.org/simple\n")],
    no_machine_path_is_named: [Source("config/settings.py", "DATA = '" + "/work" + "/data'\n")],
}
ALLOWED = [
    (only_transitions_assign_a_state, Source("payments/transitions/streams.py", "stream.state = 1\n")),
    (only_transitions_assign_a_state, Source("payments/inbox.py", "row.state = 1\n")),
    (only_locks_lock_rows, Source("payments/poll.py", "sql = 'SELECT 1 FOR UPDATE SKIP LOCKED'\n")),
    (only_locks_lock_rows, Source("orders/locks.py", "Order.objects.select_for_update()\n")),
    (only_drivers_open_sockets, Source("channels/http/blocking.py", "import urllib3\n")),
    (only_enqueue_enqueues, Source("payments/enqueue.py", "task.delay(1)\n")),
    (only_flight_runs_raw_sql, Source("payments/flight.py", "from psycopg import Cursor\n")),
]


def checked_files() -> list[Source]:
    """Return every text file that is, or is about to be, in the repository; the whole tree where git does not say."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    names = listing.stdout.split("\0") if listing.returncode == 0 else []
    if not any(names):
        names = [str(path.relative_to(CHECKOUT)) for top in PRODUCT for path in (CHECKOUT / top).rglob("*")]
    paths = [CHECKOUT / name for name in names if name]
    return [
        Source(str(path.relative_to(CHECKOUT)), path.read_text(encoding="utf-8", errors="replace"))
        for path in paths
        if path.is_file() and not path.is_symlink() and path.suffix not in BINARY
    ]


@pytest.fixture(scope="module")
def files() -> list[Source]:
    """The repository, read once."""
    return checked_files()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Rule, files: list[Source]) -> None:
    assert sum(source.is_product for source in files) > 20
    found = [f"{source.path}:{line}: {what}" for source in files for line, what in rule(source)]
    assert not found, f"{rule.__doc__}\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("rule", "bad"),
    [(rule, bad) for rule, examples in RULES.items() for bad in examples],
    ids=lambda value: value.__name__ if callable(value) else value.path,
)
def test_rule_catches_a_violation(rule: Rule, bad: Source) -> None:
    assert list(rule(bad))


@pytest.mark.parametrize(("rule", "good"), ALLOWED, ids=lambda value: getattr(value, "__name__", None) or value.path)
def test_rule_lets_the_right_place_through(rule: Rule, good: Source) -> None:
    assert not list(rule(good))
