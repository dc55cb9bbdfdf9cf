import django.db.models.deletion
from django.conf import settings
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

IN_TURN = models.Q(("claimed_at", None), ("turn__isnull", False))


class Migration(migrations.Migration):
    # CREATE INDEX CONCURRENTLY cannot run in a transaction.
    atomic = False

    dependencies = [
        ("notes", "0002_headings_and_unparsed_references"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            "pendingembedding",
            "user",
            models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            "pendingembedding",
            "size",
            models.IntegerField(
                db_default=0, default=0, help_text="Bytes of the note's content."
            ),
        ),
        migrations.AddField(
            "pendingembedding",
            "turn",
            models.BigIntegerField(
                help_text="The lowest turn comes first; null if a job must embed the note.",
                null=True,
            ),
        ),
        migrations.AddField(
            "pendingembedding",
            "claimed_at",
            models.DateTimeField(
                help_text="When a process began to embed it in its turn.", null=True
            ),
        ),
        migrations.AlterField(
            "pendingembedding",
            "enqueued_at",
            models.DateTimeField(
                help_text="When a job was enqueued for it, if it needed one.", null=True
            ),
        ),
        AddIndexConcurrently(
            "pendingembedding",
            models.Index(condition=IN_TURN, fields=["turn", "note"], name="pending_in_turn"),
        ),
        AddIndexConcurrently(
            "pendingembedding",
            models.Index(condition=IN_TURN, fields=["user", "turn"], name="pending_of_user"),
        ),
        AddIndexConcurrently(
            "pendingembedding",
            models.Index(
                condition=models.Q(("claimed_at__isnull", False)),
                fields=["claimed_at"],
                name="pending_claimed",
            ),
        ),
    ]
