from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Histogram, Metric

from notes.embeddings.processes import EmbeddingProcess
from scribes.monitoring.metrics import gauge, register

SEARCH_SECONDS = Histogram(
    "scribes_search_seconds",
    "Duration of searches, from the query to the excerpts.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)


@register()
def embedding_engines() -> Iterator[Metric]:
    uses = EmbeddingProcess.objects.alive().by_engine()
    labels = ["engine", "precision"]
    help = "Number of processes that have loaded an embedding model."
    rows = (((use.engine, use.precision), use.processes) for use in uses)
    yield gauge("scribes_embedding_processes", help, labels, rows)
    help = "Number of processes that embed with torch because OpenVINO failed."
    slow = sum(use.on_fallback for use in uses)
    yield gauge("scribes_embedding_processes_on_fallback", help, [], [((), slow)])
    help = "Passages per second of one process while its engine runs, the mean of all processes."
    speeds = (((use.engine, use.precision), use.passages_per_second) for use in uses)
    yield gauge("scribes_embedding_passages_per_second", help, labels, speeds)
