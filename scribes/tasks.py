from __future__ import annotations

from celery import shared_task

from scribes import heartbeats


@shared_task(acks_late=False, send_events=False)
def heartbeat() -> None:
    """Something to take from a queue that is idle. That it was taken is written down for every
    task, by celery_app. Flower hears nothing of it: what people look for would be lost among them."""
    heartbeats.prune()
