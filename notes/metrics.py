from __future__ import annotations

from prometheus_client import Histogram

SEARCH_SECONDS = Histogram(
    "scribes_search_seconds",
    "Duration of searches, from the query to the excerpts.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
