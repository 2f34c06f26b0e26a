"""The wire protocol of PostgreSQL as the proxy reads it: whole messages from any pieces, and every way to commit."""

import pytest

from torture.wire import Commits, Messages, committed, is_commit


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def query(sql: bytes) -> bytes:
    return message(b"Q", sql + b"\0")


def parse(name: bytes, sql: bytes) -> bytes:
    return message(b"P", name + b"\0" + sql + b"\0" + b"\0\0")


def bind(portal: bytes, statement: bytes) -> bytes:
    return message(b"B", portal + b"\0" + statement + b"\0" + b"\0\0" * 3)


def execute(portal: bytes) -> bytes:
    return message(b"E", portal + b"\0" + b"\0\0\0\0")


SYNC = message(b"S", b"")


def found(commits: Commits, data: bytes) -> list[int]:
    whole, messages = Messages().feed(data)
    assert whole == data
    return list(commits.find(whole, messages))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64])
def test_messages_are_whole_whatever_the_pieces(size: int) -> None:
    stream = query(b"SELECT 1") + parse(b"", b"UPDATE x SET y = 1") + query(b"COMMIT") + SYNC
    cutter, passed, kinds = Messages(), b"", b""
    for start in range(0, len(stream), size):
        whole, messages = cutter.feed(stream[start : start + size])
        passed += whole
        kinds += bytes(kind for kind, _start, _end in messages)
    assert passed == stream
    assert kinds == b"QPQS"


@pytest.mark.parametrize("sql", [b"COMMIT", b"commit;", b" Commit ; ", b"END", b"COMMIT WORK"])
def test_every_spelling_commits(sql: bytes) -> None:
    assert is_commit(sql)
    assert found(Commits(), query(sql)) == [0]


@pytest.mark.parametrize("sql", [b"", b"ROLLBACK", b"SELECT 'COMMIT'", b"COMMIT PREPARED 'x'", b"-- COMMIT", b"BEGIN"])
def test_nothing_else_commits(sql: bytes) -> None:
    assert not is_commit(sql)
    assert found(Commits(), query(sql)) == []


def test_a_commit_within_a_pipeline_is_its_execution() -> None:
    first = parse(b"", b"INSERT INTO x VALUES (1)") + bind(b"", b"") + execute(b"")
    prepared = first + parse(b"", b"COMMIT") + bind(b"", b"")
    assert found(Commits(), prepared + execute(b"") + SYNC) == [len(prepared)]


def test_a_commit_that_was_prepared_long_before_is_recognised() -> None:
    commits = Commits()
    assert found(commits, parse(b"_pg3_7", b"COMMIT") + SYNC) == []
    assert found(commits, bind(b"", b"_pg3_7") + execute(b"") + SYNC) == [len(bind(b"", b"_pg3_7"))]
    assert found(commits, parse(b"", b"SELECT 1") + bind(b"", b"") + execute(b"") + SYNC) == []
    assert found(commits, message(b"C", b"S_pg3_7\0") + bind(b"", b"_pg3_7") + execute(b"")) == []


def test_only_the_tag_commit_says_that_it_took_effect() -> None:
    def answer(*parts: bytes) -> tuple[int, bool] | None:
        return committed(*Messages().feed(b"".join(parts)))

    insert, done = message(b"C", b"INSERT 0 1\0"), message(b"C", b"COMMIT\0")
    assert answer(insert) is None
    assert answer(insert, done) == (len(insert), True)
    assert answer(message(b"C", b"ROLLBACK\0")) == (0, False)
    assert answer(message(b"E", b"SERROR\0\0")) == (0, False)
