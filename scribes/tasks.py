from __future__ import annotations

from celery import shared_task

from scribes.monitoring import heartbeats


@shared_task(acks_late=False, send_events=False)
def heartbeat() -> None:
    """Give an idle queue a message to consume, and prune old heartbeats.

    scribes.monitoring.heartbeats records every message that a worker takes from its queue. Flower
    does not see these tasks: people would have to look for theirs among them.
    """
    heartbeats.prune()
