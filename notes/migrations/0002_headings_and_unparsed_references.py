import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("notes", "0001_initial")]

    operations = [
        migrations.AddField(
            "note",
            "unparsed_references",
            django.contrib.postgres.fields.ArrayField(
                base_field=models.TextField(),
                db_default=[],
                default=list,
                editable=False,
                help_text="The parts of scripture_refs that are not references.",
                size=None,
            ),
        ),
        migrations.AddField(
            "passage",
            "heading",
            models.TextField(
                db_default="",
                default="",
                help_text="The heading of the section that it starts in: see chunking.headings_at.",
            ),
        ),
    ]
