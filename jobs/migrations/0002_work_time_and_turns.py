import datetime

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

IN_FLIGHT = models.Q(("status", "leased"), models.Q(("dispatched_at__isnull", False), ("status", "pending")), _connector="OR")


class Migration(migrations.Migration):
    """The column deadline_at stays in the table for processes of the previous version, which read it.
    A later migration may drop it."""

    # CREATE INDEX CONCURRENTLY cannot run in a transaction.
    atomic = False

    dependencies = [("jobs", "0001_initial")]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[migrations.RemoveField("backgroundjob", "deadline_at")]
        ),
        migrations.AddField(
            "backgroundjob",
            "work_time",
            models.DurationField(
                db_default=datetime.timedelta(0),
                default=datetime.timedelta(0),
                help_text="Time in which processes worked on it.",
            ),
        ),
        migrations.AddField(
            "backgroundjob",
            "worked_until",
            models.DateTimeField(help_text="When a process last reported work on it.", null=True),
        ),
        migrations.AddField(
            "jobbatch",
            "turn",
            models.BigIntegerField(
                db_default=0,
                default=0,
                help_text="Of waiting batches, the lowest turn comes first.",
            ),
        ),
        migrations.AddField("jobbatch", "claimed_at", models.DateTimeField(null=True)),
        AddIndexConcurrently(
            "jobbatch",
            models.Index(
                condition=models.Q(("dispatched_at__isnull", False), ("status", "pending")),
                fields=["turn", "id"],
                name="batches_in_turn",
            ),
        ),
        AddIndexConcurrently(
            "jobbatch",
            models.Index(condition=IN_FLIGHT, fields=["job"], name="batches_in_flight"),
        ),
        AddIndexConcurrently(
            "jobbatch",
            models.Index(
                condition=models.Q(("status", "leased")),
                fields=["lease_expires_at"],
                name="batches_leased",
            ),
        ),
    ]
