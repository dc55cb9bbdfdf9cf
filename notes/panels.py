"""The dashboard panel about embeddings."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Count, F, Min
from django.db.models.functions import Now
from django.utils import timezone

from jobs.estimate import items_per_second
from jobs.models import DONE_ITEMS, BackgroundJob
from notes.embeddings.processes import EmbeddingProcess
from notes.embeddings.regeneration import EMBEDDING_JOB_TYPES, EmbeddingRegeneration
from notes.models import Note, UserEmbeddingModel
from notes.pending_embeddings import PendingEmbedding
from scribes.monitoring.dashboard import Figure, Panel, register
from scribes.presentation import humanize_duration

# A lost message is repaired in less time than this, so a longer wait is a problem.
LONG_WAIT_SECONDS = 300


@register("Embeddings")
def embeddings() -> Panel:
    """Counts pending embeddings: looking for the vectors of each note would take long."""
    notes = Note.objects.with_text().count()
    pending = PendingEmbedding.objects.aggregate(n=Count("pk"), longest=Now() - Min("since"))
    is_late = bool(pending["longest"] and pending["longest"].total_seconds() > LONG_WAIT_SECONDS)
    covered = max(0, notes - pending["n"]) / notes if notes else 1
    switching = UserEmbeddingModel.objects.filter(next_model__isnull=False).count()
    return Panel(
        "",
        [
            Figure("notes with text", f"{notes:,}"),
            Figure("coverage", f"{covered:.1%}".replace("%", " %"), share=covered),
            Figure("pending embeddings", f"{pending['n']:,}", is_problem=is_late),
            Figure("longest wait", humanize_duration(pending["longest"]), is_problem=is_late),
            Figure("notes per second, now", _format_speed(_running_speed())),
            Figure(
                "notes per second, latest jobs",
                _format_speed(items_per_second(EmbeddingRegeneration.name)),
            ),
            Figure("users switching models", switching),
            *_engine_figures(),
        ],
        note="Coverage: notes that were embedded and have not been edited since.",
    )


def _engine_figures() -> Iterator[Figure]:
    for use in EmbeddingProcess.objects.alive().by_engine():
        name = f"processes with {use.engine}, {use.precision}"
        yield Figure(name, use.processes, is_problem=bool(use.on_fallback))
        yield Figure("passages per second of each", _format_speed(use.passages_per_second))


def _running_speed() -> float | None:
    """Notes per second of all running embedding jobs together; None without any."""
    running = BackgroundJob.objects.running().filter(
        job_type__in=EMBEDDING_JOB_TYPES, started_at__isnull=False
    )
    now = timezone.now()
    rows = running.annotate(done=DONE_ITEMS).values_list("done", F("started_at"))
    speeds = [done / max(1.0, (now - started).total_seconds()) for done, started in rows]
    return sum(speeds) if speeds else None


def _format_speed(speed: float | None) -> str:
    return "–" if speed is None else f"{speed:.1f}"
