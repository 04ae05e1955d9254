"""
Orders have a client, and every token has one.

The column is NULL for all orders there are, so PostgreSQL reads none of them. It waits five seconds at most for
the lock, behind which everybody else waits: when it gives up, nothing has changed, and it can be run again.
"""

import django.db.models.deletion
from django.db import migrations, models

WAIT_BRIEFLY = "SET LOCAL lock_timeout = '5s'"


class Migration(migrations.Migration):
    dependencies = [("orders", "0010_one_client_per_token")]

    operations = [
        migrations.RunSQL(WAIT_BRIEFLY, WAIT_BRIEFLY),
        migrations.AlterField(
            model_name="apitoken",
            name="client",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="tokens", to="orders.apiclient"
            ),
        ),
        migrations.AddField(
            model_name="order",
            name="client",
            field=models.ForeignKey(
                db_index=False,
                help_text="Whose order it is; NULL when no API client has placed it, or none is known to have.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="orders.apiclient",
            ),
        ),
        migrations.RunSQL(migrations.RunSQL.noop, WAIT_BRIEFLY),
    ]
