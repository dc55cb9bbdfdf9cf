"""What the admin's front page says of notes and their embeddings."""

from __future__ import annotations

from django.db.models import Count, F, Min
from django.db.models.functions import Now
from django.utils import timezone

from jobs.estimate import items_per_second
from jobs.models import DONE_ITEMS, BackgroundJob
from notes.indexing import JOB_TYPES, EmbeddingRegeneration
from notes.models import EmbeddingDue, Note, ServedModel
from scribes.dashboard import Figure, Panel, register
from scribes.display import spoken

# Due for longer than beat needs to make a job of them, in seconds.
LONG_DUE_SECONDS = 300


@register("Embeddings")
def embeddings() -> Panel:
    """By the notes that are due, since looking for each note's vectors takes long."""
    notes = Note.objects.with_text().count()
    due = EmbeddingDue.objects.aggregate(n=Count("pk"), longest=Now() - Min("since"))
    late = bool(due["longest"] and due["longest"].total_seconds() > LONG_DUE_SECONDS)
    covered = max(0, notes - due["n"]) / notes if notes else 1
    changing = ServedModel.objects.filter(next__isnull=False).count()
    return Panel(
        "",
        [
            Figure("notes with a text", f"{notes:,}"),
            Figure("coverage", f"{covered:.1%}".replace("%", " %"), share=covered),
            Figure("due", f"{due['n']:,}", is_fault=late),
            Figure("longest due", spoken(due["longest"]), is_fault=late),
            Figure("notes a second, now", _speed(_running_speed())),
            Figure("in the latest jobs", _speed(items_per_second(EmbeddingRegeneration.name))),
            Figure("users going over to another model", changing),
        ],
        note="Covered: embedded, and not edited since.",
    )


def _running_speed() -> float | None:
    """Of all running embedding jobs together; None while there are none."""
    running = BackgroundJob.objects.running().filter(
        job_type__in=JOB_TYPES, started_at__isnull=False
    )
    now = timezone.now()
    rows = running.annotate(done=DONE_ITEMS).values_list("done", F("started_at"))
    speeds = [done / max(1.0, (now - started).total_seconds()) for done, started in rows]
    return sum(speeds) if speeds else None


def _speed(speed: float | None) -> str:
    return "–" if speed is None else f"{speed:.1f}"
