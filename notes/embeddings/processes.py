"""The engine that each process embeds with: rows in the database, for operators.

A process writes its rows after a task or a request, once it has loaded a model. There is one row
for each process and model, and a row goes a day after its process has ended.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Any, NamedTuple

from celery.signals import task_postrun
from django.conf import settings
from django.core.signals import request_finished
from django.db import DatabaseError, connection, models
from django.db.models import Avg, Count, Q
from django.db.models.functions import Now
from django.dispatch import receiver

from notes.embeddings.engines import thread_count
from notes.embeddings.loading import IN_USE, EngineLoader
from scribes.monitoring.heartbeats import KEEP, process_name
from scribes.monitoring.probes.processes import overdue_seconds
from scribes.startup import web_starting

logger = logging.getLogger(__name__)

REASON_MAX_CHARACTERS = 500

_written_at = 0.0


class EngineUse(NamedTuple):
    """The processes that embed with one engine in one precision."""

    engine: str
    precision: str
    processes: int
    on_fallback: int
    """How many of them use this engine only because openvino failed."""
    passages_per_second: float | None
    """The mean of the processes: what each reaches while its engine runs."""

    def __str__(self) -> str:
        processes = "1 process" if self.processes == 1 else f"{self.processes} processes"
        text = f"{self.engine} in {self.precision}, {processes}"
        speed = self.passages_per_second
        return text if speed is None else f"{text}, {speed:.0f} passages/s each"


class EmbeddingProcessQuerySet(models.QuerySet["EmbeddingProcess"]):
    def alive(self) -> EmbeddingProcessQuerySet:
        """Processes that were seen lately."""
        return self.filter(at__gt=Now() - timedelta(seconds=overdue_seconds()))

    def by_engine(self) -> list[EngineUse]:
        rows = self.values_list("engine", "precision").order_by("engine", "precision")
        numbers = rows.annotate(
            processes=Count("process", distinct=True),
            on_fallback=Count("process", distinct=True, filter=~Q(fallback_reason="")),
            speed=Avg("passages_per_second"),
        )
        return [EngineUse(*row) for row in numbers]


class EmbeddingProcess(models.Model):
    """A process that has loaded an embedding model."""

    process = models.CharField(max_length=300, help_text="host:pid")
    model = models.CharField(max_length=150, help_text="The version of the model.")
    engine = models.CharField(max_length=20, help_text="openvino or torch.")
    precision = models.CharField(max_length=20, help_text="bf16 or f32.")
    threads = models.PositiveIntegerField()
    fallback_reason = models.TextField(
        help_text="Why torch runs the model although openvino was asked for; empty if that is not so."
    )
    passages_per_second = models.FloatField(
        null=True, help_text="While the engine ran, over the latest texts."
    )
    at = models.DateTimeField(help_text="When the process was last seen.")

    objects = EmbeddingProcessQuerySet.as_manager()

    class Meta:
        db_table = "embedding_processes"
        constraints = [
            models.UniqueConstraint(
                fields=["process", "model"], name="one_row_per_embedding_process"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.process}: {self.engine}"

    @property
    def reason(self) -> str:
        """The last line of the reason: errors of other processes end with what matters."""
        return self.fallback_reason.strip().rpartition("\n")[2]


@receiver(web_starting)
def record_after_requests(**_: Any) -> None:
    request_finished.connect(record)


@task_postrun.connect
def record(**_: Any) -> None:
    """Write the rows of this process, at most twice in HEARTBEAT_SECONDS.

    Never raises: the work itself matters more.
    """
    global _written_at
    if not IN_USE or time.monotonic() - _written_at < settings.HEARTBEAT_SECONDS / 2:
        return
    _written_at = time.monotonic()
    try:
        _write(list(IN_USE.values()))
    except DatabaseError as error:
        logger.warning("The embedding engine was not recorded: %s", error)
        # The next query must not get the broken connection.
        connection.close()


def _write(loaders: list[EngineLoader]) -> None:
    """A loader that has embedded nothing since its last row keeps the speed of that row."""
    EmbeddingProcess.objects.filter(at__lt=Now() - KEEP).delete()
    for loader in loaders:
        speed = loader.take_speed()
        EmbeddingProcess.objects.bulk_create(
            [_row(loader, speed)],
            update_conflicts=True,
            unique_fields=["process", "model"],
            update_fields=["engine", "precision", "threads", "fallback_reason", "at"]
            + ([] if speed is None else ["passages_per_second"]),
        )


def _row(loader: EngineLoader, speed: float | None) -> EmbeddingProcess:
    return EmbeddingProcess(
        process=process_name(),
        model=loader.version,
        engine=loader.loaded.name if loader.loaded else "",
        precision=loader.loaded.precision if loader.loaded else "",
        threads=thread_count(),
        fallback_reason=loader.fallback_reason[-REASON_MAX_CHARACTERS:],
        passages_per_second=speed,
        at=Now(),
    )
