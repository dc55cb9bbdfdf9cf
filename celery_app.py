"""The Celery app: its queues, its safety settings, its timetable, and the worker's banner."""

from __future__ import annotations

import gc
import logging
import logging.config
import os
from pathlib import Path
from typing import Any

from billiard import current_process
from celery import Celery
from celery.schedules import crontab
from celery.signals import (
    celeryd_after_setup,
    setup_logging,
    task_prerun,
    worker_before_create_process,
    worker_process_init,
    worker_ready,
)
from kombu import Queue
from kombu.transport import TRANSPORT_ALIASES

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scribes.settings")
# Started from another folder, Flower would not find it, and let everybody in.
os.environ.setdefault("FLOWER_CONF", str(Path(__file__).with_name("flowerconfig.py")))

# With kombu's own, a Redis that dies at the wrong moment ends the worker.
TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = "jobs.transport:Transport"

QUEUES = ("default", "embeddings", "reminders")

app = Celery("scribes")
app.autodiscover_tasks()
logger = logging.getLogger("scribes.worker")


def configuration() -> dict[str, Any]:
    """Celery's settings. Read late, so that importing this module loads no Django settings."""
    from django.conf import settings

    return {
        # kombu's name for redis-py's unix:// is redis+socket://
        "broker_url": settings.REDIS_URL.replace("unix://", "redis+socket://", 1),
        # kombu would take any certificate, unless the URL says ?ssl_cert_reqs=required.
        "broker_use_ssl": settings.REDIS_URL.startswith("rediss:")
        and {"ssl_cert_reqs": "required"},
        "broker_transport_options": {
            "global_keyprefix": settings.REDIS_KEY_PREFIX,
            # Above twice the time limit, or a message is delivered again while it is worked on.
            "visibility_timeout": 3 * settings.TASK_TIME_LIMIT,
            # Look for unacknowledged messages every 10 s, not at each tenth time.
            "unacked_restore_throttle": 1,
            # kombu waits for ever by default; a half-open connection would hang a request.
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        "broker_pool_limit": settings.REDIS_MAX_CONNECTIONS,
        "broker_pool_acquire_timeout": 2,
        "broker_connection_timeout": 3,
        "broker_connection_retry_on_startup": True,
        # A worker waits for the broker as long as it takes; by default it gives up after 100.
        "broker_connection_max_retries": None,
        # A message is a hint and the row is the truth: the reconciler repeats what gets lost, so
        # a request need not wait for a second attempt.
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_max": 0.2},
        # Nothing reads results; job rows keep them.
        "task_ignore_result": True,
        # Without results there is nothing for beat's daily clean-up task to do.
        "result_expires": None,
        # JSON only: a message can hold data, never code.
        "task_serializer": "json",
        "accept_content": ["json"],
        # A message goes back to the queue if its process dies; how often is for the rows to say.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        # With late acknowledgement: one message for each process and none held back.
        "worker_prefetch_multiplier": 1,
        # No soft limit: it raises at any byte code, also inside a COMMIT.
        "task_time_limit": settings.TASK_TIME_LIMIT,
        # Leases make a second delivery harmless; cancelling would interrupt like a soft limit.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_concurrency": settings.WORKER_CONCURRENCY,
        # Against leaks. Far above a process with a model in it: a new one loads it again.
        "worker_max_tasks_per_child": 1000,
        "worker_max_memory_per_child": 3_000_000,  # kB
        # A slow machine needs longer than the default 4 s to start a process.
        "worker_proc_alive_timeout": 30,
        # All queues are declared, so that a bare `celery -A scribes worker` serves every one.
        "task_default_queue": "default",
        "task_queues": [
            # Without a routing key of its own a queue gets the default queue's messages, too.
            Queue(name, routing_key=name)
            for name in QUEUES
        ],
        "task_create_missing_queues": False,
        # For Flower. Not also when a message is sent: that event has the task's own name, and often
        # comes after the worker's, so that what the message says of itself would be lost.
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        "enable_utc": True,
        "timezone": "UTC",
        "beat_scheduler": "scribes.beat:DatabaseScheduler",
        "beat_schedule": {
            **{
                f"heartbeat of {queue}": {
                    "task": "scribes.tasks.heartbeat",
                    "schedule": float(settings.HEARTBEAT_SECONDS),
                    # A worker that comes back need not take all that were sent meanwhile.
                    "options": {"queue": queue, "expires": 6 * settings.HEARTBEAT_SECONDS},
                }
                for queue in QUEUES
            },
            "reconcile": {
                "task": "jobs.tasks.reconcile",
                "schedule": float(settings.RECONCILE_SECONDS),
                # One that waited until the next is due has nothing to add.
                "options": {"expires": settings.RECONCILE_SECONDS},
            },
            "sweep reminders": {
                "task": "reminders.tasks.sweep",
                "schedule": crontab(minute="0,15,30,45"),
                # Not the reminders' own queue, where it would wait behind what is being sent.
                "options": {"expires": 14 * 60},
            },
            # What is to be tried again, and what got lost, does not wait for the next quarter.
            "resend reminders": {
                "task": "reminders.tasks.resend",
                "schedule": float(settings.REMINDER_TICK_SECONDS),
                "options": {"expires": settings.REMINDER_TICK_SECONDS},
            },
            "embed due notes": {
                "task": "notes.tasks.embed_due_notes",
                "schedule": 60.0,
                "options": {"expires": 60},
            },
        },
    }


app.add_defaults(configuration)


@setup_logging.connect
def log_as_django_does(**_: Any) -> None:
    """One format on stdout for all processes, in place of Celery's own on stderr."""
    from django.conf import settings

    logging.config.dictConfig(settings.LOGGING)


@celeryd_after_setup.connect
def know_own_concurrency(instance: Any, conf: Any, **_: Any) -> None:
    """`worker -c 4` counts more than the setting: the model's threads are shared out by it."""
    conf.worker_concurrency = instance.concurrency


@worker_before_create_process.connect
def share_what_is_imported(**_: Any) -> None:
    """A process of the pool shares the worker's memory until one of the two writes to it, as the
    garbage collector does to every object that it looks at: 30 MB more for each process."""
    gc.collect()  # what is garbage now would stay for ever
    gc.freeze()


@worker_process_init.connect
def leave_the_group(**_: Any) -> None:
    """Whoever stops a worker signals its whole process group, as honcho does. That must not reach
    the pool: a process in the middle of a batch finishes it, and the worker waits for that.

    The pool `solo`, the one for Windows, has no processes but the worker's own.
    """
    if current_process().name != "MainProcess":
        os.setpgid(0, 0)


@task_prerun.connect
def record_consumption(task: Any, **_: Any) -> None:
    """A message was taken from its queue: the proof that the worker does its work."""
    from scribes import heartbeats

    queue = (task.request.delivery_info or {}).get("routing_key")
    if queue in QUEUES:
        heartbeats.record(heartbeats.of_queue(queue))


@worker_ready.connect
def reconcile_at_start(**_: Any) -> None:
    """A worker that comes back looks at once for what was lost with its predecessor, and for what
    became due meanwhile."""
    app.send_task("jobs.tasks.reconcile", expires=60)
    app.send_task("reminders.tasks.sweep", expires=60)
    app.send_task("reminders.tasks.resend", expires=60)
    for queue in QUEUES:
        app.send_task("scribes.tasks.heartbeat", queue=queue, expires=60)


@worker_ready.connect
def banner(sender: Any, **_: Any) -> None:
    tasks = sorted(name for name in app.tasks if not name.startswith("celery."))
    logger.info("Worker %s is ready", sender.hostname)
    logger.info("  broker:      %s", app.connection().as_uri())  # masks the password
    logger.info("  concurrency: %s", sender.controller.concurrency)
    logger.info("  time limit:  %s s a task", app.conf.task_time_limit)
    logger.info("  queues:      %s", ", ".join(sorted(app.amqp.queues)))
    logger.info("  tasks:       %s", ", ".join(tasks))
