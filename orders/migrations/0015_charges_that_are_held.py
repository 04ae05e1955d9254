"""Since when a provider has waited for a person to capture or cancel a charge."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orders", "0014_longer_ids_of_providers")]

    operations = [
        migrations.AddField(
            model_name="payment",
            name="held_since",
            field=models.DateTimeField(
                help_text="Since when a person has to capture or cancel it at the provider; NULL: nobody has.",
                null=True,
            ),
        ),
    ]
