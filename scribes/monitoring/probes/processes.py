"""Do beat and the workers do their work? Their heartbeats say so."""

from __future__ import annotations

from celery import current_app
from django.conf import settings

from celery_app import QUEUES
from scribes.monitoring import heartbeats
from scribes.monitoring.probes import redis
from scribes.monitoring.probes.registry import ProbeFailed, register

# A worker may be busy with one task for long, so this many heartbeats in a row may be missing.
MAX_MISSING_HEARTBEATS = 6
PING_SECONDS = 0.3
SCHEMA = ("PostgreSQL", "migrations")


@register("beat", group="database", needs=SCHEMA, critical=True, needs_running_processes=True)
def beat() -> str:
    age = heartbeats.ages().get(heartbeats.BEAT)
    if _is_overdue(age):
        raise ProbeFailed(
            f"Beat has not looked at its schedule {_since(age)}",
            "the process `celery -A scribes beat`",
            "sudo systemctl restart scribes-beat, or: celery -A scribes beat",
        )
    return f"looked at its schedule {age:.0f} s ago"


@register(
    "workers",
    group="database",
    needs=(*SCHEMA, "beat"),
    critical=True,
    needs_running_processes=True,
)
def workers() -> str:
    """Needs beat: without it nothing is sent to an idle queue, so a missing heartbeat proves nothing."""
    ages = heartbeats.ages()
    queues = {queue: ages.get(heartbeats.of_queue(queue)) for queue in QUEUES}
    if overdue := {queue: age for queue, age in queues.items() if _is_overdue(age)}:
        raise ProbeFailed(
            "No worker has taken a message from "
            + ", ".join(f"the queue {queue} {_since(age)}" for queue, age in overdue.items()),
            _answering_workers(),
            "sudo systemctl restart scribes-worker, or: python manage.py run_worker",
        )
    return f"consume {', '.join(QUEUES)}"


def overdue_seconds() -> int:
    """The age at which a missing heartbeat is a fault."""
    seconds: int = MAX_MISSING_HEARTBEATS * settings.HEARTBEAT_SECONDS
    return seconds


def _is_overdue(age: float | None) -> bool:
    return age is None or age > overdue_seconds()


def _since(age: float | None) -> str:
    return "yet" if age is None else f"for {age:.0f} s"


def _answering_workers() -> str:
    """Tell a worker that runs but consumes nothing from one that is gone."""
    try:
        redis.client().ping()  # Celery would wait for a broker that is down
        answers = current_app.control.inspect(timeout=PING_SECONDS).ping() or {}
    except Exception as error:  # noqa: BLE001 whatever the broker's client raises, nobody answered
        return f"no worker can be asked: {type(error).__name__}"
    if answers:
        return f"{', '.join(sorted(answers))} answers, but takes no messages"
    return "no worker answers: none runs, or it hangs"
