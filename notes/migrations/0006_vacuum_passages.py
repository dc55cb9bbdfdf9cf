from django.db import migrations


class Migration(migrations.Migration):
    """0005 rewrote the table. Until a vacuum has seen its pages, searches look up every row."""

    # VACUUM runs in no transaction.
    atomic = False

    dependencies = [
        ('notes', '0005_more_entries_on_a_page'),
    ]

    operations = [
        migrations.RunSQL("VACUUM (ANALYZE) passages", migrations.RunSQL.noop),
    ]
