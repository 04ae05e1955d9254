"""
Let the database refuse what code must never do: an illegal move, and a change to an order's past.

The moves are those of `orders.moves` on the day of this migration; a test compares the two.
"""

from django.db import migrations

CREATE = """
CREATE SEQUENCE orders_number START 1000;

CREATE FUNCTION orders_refuse_illegal_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.status, NEW.status) NOT IN (
        ('placed', 'validated'), ('placed', 'rejected'), ('placed', 'cancelled'),
        ('validated', 'charged'), ('validated', 'charge_unknown'),
        ('validated', 'rejected'), ('validated', 'cancelled'),
        ('charge_unknown', 'charged'), ('charge_unknown', 'rejected'), ('charge_unknown', 'cancelled'),
        ('charged', 'fulfilled'), ('charged', 'cancelling'),
        ('cancelling', 'cancelled')
    ) THEN
        RAISE EXCEPTION 'order % cannot move from % to %', NEW.number, OLD.status, NEW.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'orders_legal_moves';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER orders_legal_moves BEFORE UPDATE OF status ON orders_order
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status)
    EXECUTE FUNCTION orders_refuse_illegal_move();

CREATE FUNCTION orders_refuse_change_of_past() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'transitions are append-only'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'orders_past_is_fixed';
END $$;

CREATE TRIGGER orders_past_is_fixed BEFORE UPDATE ON orders_ordertransition
    FOR EACH ROW EXECUTE FUNCTION orders_refuse_change_of_past();
"""

DROP = """
DROP TRIGGER orders_past_is_fixed ON orders_ordertransition;
DROP FUNCTION orders_refuse_change_of_past();
DROP TRIGGER orders_legal_moves ON orders_order;
DROP FUNCTION orders_refuse_illegal_move();
DROP SEQUENCE orders_number;
"""


class Migration(migrations.Migration):
    dependencies = [("orders", "0001_products_and_orders")]

    operations = [migrations.RunSQL(CREATE, DROP)]
