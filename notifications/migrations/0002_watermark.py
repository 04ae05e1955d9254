from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("notifications", "0001_notifications_and_preferences")]

    operations = [
        migrations.CreateModel(
            name="Watermark",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("checked_until", models.DateTimeField()),
            ],
        ),
    ]
