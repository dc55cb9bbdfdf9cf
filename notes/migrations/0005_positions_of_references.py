from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("notes", "0004_embedding_processes")]

    operations = [
        migrations.AddField(
            "scripturereference",
            "source",
            models.CharField(
                db_default="",
        default="",
                max_length=20,
                help_text="The field of the note that it is in: scripture_refs or content; empty if "
        "a version that recorded no positions saved it.",
            ),
        ),
        migrations.AddField(
            "scripturereference",
            "char_start",
            models.PositiveIntegerField(
                null=True, help_text="Where it begins in that field, in characters."
            ),
        ),
        migrations.AddField(
            "scripturereference",
            "char_end",
            models.PositiveIntegerField(
                null=True, help_text="The position after its last character."
            ),
        ),
    ]
