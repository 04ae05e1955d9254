"""Which delivery a lost worker had. A column with a default of the database's: safe beside the old code."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0011_periodic_runs"),
    ]

    operations = [
        migrations.AddField(
            model_name="attempt",
            name="delivery",
            field=models.CharField(
                blank=True,
                db_default="",
                help_text="The delivery whose worker was lost, else empty.",
                max_length=32,
            ),
        ),
    ]
