"""
Ids of providers may be as long as Stripe's. PostgreSQL changes no row for that, and holds its lock for a moment.

On the way back it refuses if a longer id was written meanwhile: cut off, it would be that of nothing.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0013_orders_by_client"),
    ]

    operations = [
        migrations.AlterField(
            model_name=model,
            name="provider_id",
            field=models.CharField(blank=True, max_length=255),
        )
        for model in ("payment", "refund", "shipment")
    ]
