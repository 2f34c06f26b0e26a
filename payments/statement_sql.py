"""The questions that the comparison with a statement asks the database. Anti-joins by index: no statement is too long."""

REFUND_DAYS = 14
"""How long a refund may take from our asking to its line: a channel may list it once the buyer's bank has it."""
LATE_DAYS = 3
"""A payment is looked for when its day is compared, and for so long before: money may become known late, and days may come late."""
OF_A_NUMBER = (
    "l.account = s.account AND l.kind = 'payment' AND l.number IN (s.number, s.origin_number) AND l.number <> ''"
)
DIFFERENT_PAYMENTS = """
id IN (SELECT l.id FROM payonce_statement_line l WHERE l.statement_id = %s AND l.kind = 'payment'
AND (starts_with(l.number, %s) OR EXISTS (SELECT 1 FROM payonce_stream s WHERE s.number = l.number) OR EXISTS (
    SELECT 1 FROM payonce_stream s WHERE s.account = l.account AND s.channel_reference = l.channel_reference))
AND NOT EXISTS (
    SELECT 1 FROM payonce_stream s WHERE s.account = l.account AND s.channel_reference = l.channel_reference
    AND s.state = 'SUCCEEDED' AND s.captured_minor = l.amount_minor AND s.captured_currency = l.currency
) AND NOT EXISTS (
    SELECT 1 FROM payonce_stream named JOIN payonce_stream s ON s.order_id = named.order_id
    WHERE named.number = l.number AND s.account = l.account AND l.number IN (s.number, s.origin_number)
    AND (l.channel_reference = '' OR COALESCE(s.channel_reference, '') = '')
    AND s.state = 'SUCCEEDED' AND s.captured_minor = l.amount_minor AND s.captured_currency = l.currency
    AND (SELECT count(DISTINCT m.at) FROM payonce_statement_line m WHERE m.account = l.account AND m.kind = 'payment'
         AND m.number = l.number AND m.amount_minor = l.amount_minor AND m.currency = l.currency)
        <= (SELECT count(*) FROM payonce_stream t WHERE t.order_id = s.order_id AND t.state = 'SUCCEEDED'
            AND t.account = l.account AND l.number IN (t.number, t.origin_number)
            AND t.captured_minor = l.amount_minor AND t.captured_currency = l.currency)
)) ORDER BY id
"""
"""A line agrees with a stream by its reference; where it has none, by its number, if there are as many streams as lines of the amount.

Lines about other people's numbers are left out.
"""
DIFFERENT_REFUNDS = """
id IN (SELECT l.id FROM payonce_statement_line l WHERE l.statement_id = %s AND l.kind = 'refund'
AND (starts_with(l.payment_number, %s) OR EXISTS (SELECT 1 FROM payonce_stream s WHERE s.number = l.payment_number)
    OR EXISTS (SELECT 1 FROM payonce_stream s WHERE s.account = l.account AND s.channel_reference = l.payment_reference)
    OR EXISTS (SELECT 1 FROM payonce_refund r WHERE r.number = l.number))
AND NOT EXISTS (
    SELECT 1 FROM payonce_refund r JOIN payonce_stream s ON s.id = r.stream_id
    WHERE r.number = l.number AND s.account = l.account AND (
        (l.came_to = 'FAILED' AND r.state <> 'SUCCEEDED')
        OR (l.came_to NOT IN ('DONE', 'FAILED') AND r.state IN ('SUBMITTED', 'UNKNOWN', 'ATTENTION', 'SUCCEEDED', 'RETURNED'))
        OR (l.came_to = 'DONE' AND r.state IN ('SUCCEEDED', 'RETURNED') AND r.currency = l.currency AND r.amount_minor = (
            SELECT sum(part.amount_minor) FROM (SELECT DISTINCT m.at, m.amount_minor, m.channel_reference FROM payonce_statement_line m
                WHERE m.account = l.account AND m.kind = 'refund' AND m.number = l.number AND m.came_to = 'DONE') AS part))
    )
)) ORDER BY id
"""
FOREIGN = """
SELECT count(*) FROM payonce_statement_line l WHERE l.statement_id = %s
AND NOT starts_with(CASE l.kind WHEN 'payment' THEN l.number ELSE l.payment_number END, %s)
AND NOT EXISTS (SELECT 1 FROM payonce_stream s WHERE s.number = CASE l.kind WHEN 'payment' THEN l.number ELSE l.payment_number END)
AND NOT EXISTS (SELECT 1 FROM payonce_stream s WHERE s.account = l.account
    AND s.channel_reference = CASE l.kind WHEN 'payment' THEN l.channel_reference ELSE l.payment_reference END)
AND NOT EXISTS (SELECT 1 FROM payonce_refund r WHERE r.number = l.number AND l.kind = 'refund')
"""
HERE = (
    "(SELECT count(*) FROM payonce_statement_day d WHERE d.account = s.account AND d.fetched_at IS NOT NULL"
    " AND d.day BETWEEN ({at} AT TIME ZONE 'UTC')::date - 1 AND ({at} AT TIME ZONE 'UTC')::date + {after}) = {after} + 2"
)
"""Are all statements here that could name it? Calendars differ by a day."""
TOLD = " AND NOT EXISTS (SELECT 1 FROM payonce_discrepancy d WHERE d.kind = 'statement' AND d.subject = {})"
MISSING_PAYMENTS = (
    "SELECT s.number FROM payonce_stream s WHERE s.state = 'SUCCEEDED' AND s.account = %s AND s.succeeded_at >= %s"
    f" AND NOT EXISTS (SELECT 1 FROM payonce_statement_line l WHERE {OF_A_NUMBER})"
    " AND NOT EXISTS (SELECT 1 FROM payonce_statement_line l WHERE l.account = s.account AND l.kind = 'payment'"
    " AND l.channel_reference = s.channel_reference AND l.channel_reference <> '')"
    " AND "
    + HERE.format(at="COALESCE(s.paid_at, s.succeeded_at)", after=1)
    + TOLD.format("s.number")
    + " ORDER BY s.id"
)
MISSING_REFUNDS = (
    "SELECT r.number FROM payonce_refund r JOIN payonce_stream s ON s.id = r.stream_id"
    " WHERE r.state = 'SUCCEEDED' AND s.account = %s AND r.first_sent_at >= %s"
    " AND NOT EXISTS (SELECT 1 FROM payonce_statement_line l WHERE l.account = s.account AND l.kind = 'refund' AND l.number = r.number)"
    " AND " + HERE.format(at="r.first_sent_at", after=REFUND_DAYS) + TOLD.format("r.number") + " ORDER BY r.id"
)
UNKNOWN_REFUNDS = """
SELECT COALESCE(sum(amount), 0) FROM (
    SELECT max(l.amount_minor) AS amount FROM payonce_statement_line l
    WHERE l.account = %s AND l.kind = 'refund' AND l.came_to <> 'FAILED' AND (l.payment_number = %s OR l.payment_reference = %s)
    AND NOT EXISTS (SELECT 1 FROM payonce_refund r JOIN payonce_stream s ON s.id = r.stream_id
        WHERE r.number = l.number AND s.account = l.account)
    GROUP BY l.number, l.channel_reference, l.at
) AS each
"""
REFUND_OF_OURS = """
SELECT 1 FROM payonce_refund r JOIN payonce_stream s ON s.id = r.stream_id WHERE r.number = %s AND s.account = %s
"""
