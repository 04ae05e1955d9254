"""How the admin spells API tokens; the database has nothing to do."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("orders", "0004_open_payments_were_asked")]

    operations = [migrations.AlterModelOptions(name="apitoken", options={"verbose_name": "API token"})]
