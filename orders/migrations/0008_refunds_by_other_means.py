"""
Refunds may have been made by other means, by a person who says how. New columns have defaults in the database,
so that workers of the code before this one go on.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0007_refunds_may_fail"),
    ]

    operations = [
        migrations.AddField(
            model_name="refund",
            name="given_back_by",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="Who says that the money was given back by other means; empty when the provider did it.",
                max_length=200,
            ),
        ),
        migrations.AddField(
            model_name="refund",
            name="given_back_how",
            field=models.TextField(
                blank=True,
                db_default="",
                default="",
                help_text="What they said of it; empty when the provider did it.",
            ),
        ),
    ]
