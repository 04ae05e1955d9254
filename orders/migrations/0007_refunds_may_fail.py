"""
Refunds may fail, and say how often they did and why. New columns have defaults in the database, so that
workers of the code before this one go on.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0006_cancellations_name_their_message"),
    ]

    operations = [
        migrations.AddField(
            model_name="refund",
            name="failures",
            field=models.PositiveSmallIntegerField(
                db_default=0, default=0, help_text="How many refunds of this charge gave nothing back."
            ),
        ),
        migrations.AddField(
            model_name="refund",
            name="error",
            field=models.TextField(
                blank=True, db_default="", default="", help_text="Why it is open, or has failed."
            ),
        ),
        migrations.AlterField(
            model_name="refund",
            name="status",
            field=models.CharField(
                choices=[("requested", "requested"), ("succeeded", "succeeded"), ("failed", "failed")],
                default="requested",
                max_length=10,
            ),
        ),
    ]
