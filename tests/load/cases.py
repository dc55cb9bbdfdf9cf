"""The cases of `make load`, in the order in which they run."""

from __future__ import annotations

from tests.load import embedding, web
from tests.load.report import Case

CASES = {
    "fairness": Case(embedding.fairness),
    "long_notes": Case(embedding.long_notes),
    "saving": Case(embedding.saving),
    "many_users": Case(embedding.many_users, {"JOB_TIMEOUT_SECONDS": "10", "JOB_BATCH_SIZE": "10"}),
    "all_users": Case(embedding.all_users),
    "dear_requests": Case(web.dear_requests),
    "busy_neighbour": Case(web.busy_neighbour),
    "memory": Case(web.memory),
    "slow_clients": Case(web.slow_clients),
}
