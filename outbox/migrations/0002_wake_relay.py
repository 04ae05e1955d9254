"""
Wake the relay when messages are written, but only while it sleeps.

PostgreSQL lets transactions that notify commit one after the other; asking a one-row table first
keeps that price from a busy system. A trigger, so that it costs no round trip and no writer forgets it.
"""

from django.db import migrations

CREATE = """
CREATE FUNCTION outbox_wake_relay() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM outbox_relaystate WHERE sleeping) THEN
        NOTIFY outbox;
    END IF;
END $$;

CREATE FUNCTION outbox_message_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM outbox_wake_relay();
    RETURN NULL;
END $$;

CREATE TRIGGER outbox_wake_relay AFTER INSERT ON outbox_outboxmessage
    FOR EACH STATEMENT EXECUTE FUNCTION outbox_message_written();

INSERT INTO outbox_relaystate (id, sleeping) VALUES (1, false);
"""

DROP = """
DROP TRIGGER outbox_wake_relay ON outbox_outboxmessage;
DROP FUNCTION outbox_message_written();
DROP FUNCTION outbox_wake_relay();
DELETE FROM outbox_relaystate;
"""


class Migration(migrations.Migration):
    dependencies = [("outbox", "0001_outbox_inbox_dead_letters")]

    operations = [migrations.RunSQL(CREATE, DROP)]
