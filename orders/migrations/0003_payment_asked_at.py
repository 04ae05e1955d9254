"""When a provider was first and last asked for a charge, as far as it may have acted."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orders", "0002_legal_moves")]

    operations = [
        migrations.AddField(
            model_name="payment",
            name="first_asked_at",
            field=models.DateTimeField(
                help_text="When the first call was about to be made that may have acted; NULL: none has.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="payment",
            name="last_asked_at",
            field=models.DateTimeField(help_text="The same of the last such call; NULL: none.", null=True),
        ),
    ]
