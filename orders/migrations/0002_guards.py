"""The clock, and the two rules that only a trigger can keep: history is append-only, a keeper never changes."""

from django.db import migrations

CLOCK = """
CREATE OR REPLACE FUNCTION payonce_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT clock_timestamp()'
"""

APPEND_ONLY = """
CREATE OR REPLACE FUNCTION payonce_event_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'payonce: events are append-only (% refused)', TG_OP
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'payonce_event_append_only';
END $$;
CREATE TRIGGER payonce_event_append_only BEFORE UPDATE OR DELETE ON payonce_event
    FOR EACH ROW EXECUTE FUNCTION payonce_event_append_only();
"""

KEEPER_FIXED = """
CREATE OR REPLACE FUNCTION payonce_order_keeper_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'payonce: the keeper of an order never changes (order %)', OLD.number
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'payonce_order_keeper_fixed';
END $$;
CREATE TRIGGER payonce_order_keeper_fixed BEFORE UPDATE ON payonce_order
    FOR EACH ROW WHEN (OLD.keeper IS NOT NULL AND NEW.keeper IS DISTINCT FROM OLD.keeper)
    EXECUTE FUNCTION payonce_order_keeper_fixed();
"""

DROP = """
DROP TRIGGER IF EXISTS payonce_order_keeper_fixed ON payonce_order;
DROP FUNCTION IF EXISTS payonce_order_keeper_fixed();
DROP TRIGGER IF EXISTS payonce_event_append_only ON payonce_event;
DROP FUNCTION IF EXISTS payonce_event_append_only();
DROP FUNCTION IF EXISTS payonce_now();
"""


class Migration(migrations.Migration):
    dependencies = [("payonce_orders", "0001_initial")]

    operations = [migrations.RunSQL(CLOCK + ";" + APPEND_ONLY + KEEPER_FIXED, DROP)]
