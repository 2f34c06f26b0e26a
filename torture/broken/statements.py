"""Broken builds of the comparison with channels' statements."""

from torture.sabotage import Change, Saboteur

CHECK = "payments/statement_check.py"
TESTS = "tests/path/test_statements.py"

BUILDS = (
    Saboteur(
        "statement-pays-out",
        "A second capture that only a statement tells is given back without a person.",
        ("M5", "M6"),
        (f"{TESTS}::test_a_second_capture_that_only_the_statement_tells_becomes_surplus_that_a_person_decides_about",),
        (Change(CHECK, "Confirmation.STATEMENT, automatic=False)", "Confirmation.STATEMENT, automatic=True)"),),
    ),
    Saboteur(
        "statement-line-unasked",
        "Where a line and a stream differ, the channel is not asked.",
        ("L1", "M1"),
        (f"{TESTS}::test_money_that_every_message_lost_is_learnt_from_the_channel_that_the_statement_makes_us_ask",),
        (Change(CHECK, "    if not _ask(look, number):\n        return True\n\n    def decide", "    def decide"),),
    ),
    Saboteur(
        "no-answer-settles-a-statement",
        "A day counts as compared although the channel did not answer what it was asked.",
        ("S4", "M1"),
        (f"{TESTS}::test_without_an_answer_to_the_question_the_day_is_compared_again",),
        (Change(CHECK, "    if look.unanswered:\n", "    if False:\n"),),
    ),
    Saboteur(
        "absence-judged-too-early",
        "Money that one day does not name is called missing before the days around it are here.",
        ("M1", "S14"),
        (f"{TESTS}::test_money_that_the_neighbouring_day_names_is_not_missing",
         f"{TESTS}::test_a_day_that_is_still_missing_tells_nothing_about_money_that_no_other_names"),
        (Change("payments/statement_sql.py", 'HERE.format(at="COALESCE(s.paid_at, s.succeeded_at)", after=1)', '"TRUE"'),),
    ),
    Saboteur(
        "outside-refund-left-in-the-statement",
        "Where only the statement tells of money that was given back at the channel, no case is opened.",
        ("M1",),
        (f"{TESTS}::test_money_given_back_there_is_a_case_where_only_the_statement_tells",),
        (Change(CHECK, "    if stream.channel_refunded_minor >= moved_minor(work, stream) + amount:\n", "    if True:\n"),),
    ),
)  # fmt: skip
