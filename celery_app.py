"""The Celery app: its queues, its settings, its schedule, and what a worker does as it starts."""

from __future__ import annotations

import gc
import logging
import logging.config
import os
import warnings
from pathlib import Path
from typing import Any

from billiard import current_process
from celery import Celery
from celery.exceptions import CPendingDeprecationWarning
from celery.schedules import crontab
from celery.signals import (
    celeryd_after_setup,
    setup_logging,
    worker_before_create_process,
    worker_process_init,
    worker_ready,
)
from django.conf import settings
from kombu import Queue
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scribes.settings")
# Without this, Flower started from another folder would not find its settings and need no password.
os.environ.setdefault("FLOWER_CONF", str(Path(__file__).with_name("flowerconfig.py")))

# With kombu's own transport, a Redis that dies at the wrong moment ends the worker.
TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = "scribes.messaging.transport:Transport"

# `control` has the short work that keeps everything going: planning, reconciling, sweeps, retries and
# heartbeats. Each kind of longer work has a queue of its own: saved notes, batches of jobs, deliveries.
QUEUES = ("control", "notes", "embeddings", "reminders")
SWEEP_EXPIRES_SECONDS = 14 * 60
PENDING_NOTES_SECONDS = 60
START_EXPIRES_SECONDS = 60
START_TASKS = (
    "jobs.tasks.reconcile",
    "reminders.tasks.sweep",
    "reminders.tasks.retry_due_deliveries",
)

app = Celery("scribes")
app.autodiscover_tasks()
logger = logging.getLogger("scribes.worker")


# --- Settings -------------------------------------------------------------------------------


def configuration() -> dict[str, Any]:
    """Celery's settings. Called late, so that importing this module loads no Django settings."""
    return {
        **broker_settings(),
        **message_settings(),
        **worker_settings(),
        **queue_settings(),
        **event_settings(),
        **beat_settings(),
    }


def broker_settings() -> dict[str, Any]:
    return {
        # kombu's name for redis-py's unix:// is redis+socket://
        "broker_url": settings.REDIS_URL.replace("unix://", "redis+socket://", 1),
        # kombu accepts any certificate unless the URL has ?ssl_cert_reqs=required.
        "broker_use_ssl": settings.REDIS_URL.startswith("rediss:")
        and {"ssl_cert_reqs": "required"},
        "broker_transport_options": {
            "global_keyprefix": settings.REDIS_KEY_PREFIX,
            "queue_order_strategy": "scribes.messaging.queue_order:ControlFirst",
            # More than twice the time limit, or a message is delivered again while a worker is
            # busy with it.
            "visibility_timeout": 3 * settings.TASK_TIME_LIMIT_SECONDS,
            # Look for unacknowledged messages at each poll (every 10 s), not at every tenth.
            "unacked_restore_throttle": 1,
            # kombu waits for ever by default, and a half-open connection would block a request.
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        "broker_pool_limit": settings.REDIS_MAX_CONNECTIONS,
        "broker_pool_acquire_timeout": 2,
        "broker_connection_timeout": 3,
        "broker_connection_retry_on_startup": True,
        # A worker waits for the broker without limit; by default it gives up after 100 attempts.
        "broker_connection_max_retries": None,
        # A message is only a hint. The reconciler sends lost ones again, so a request need not
        # wait for more attempts.
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_max": 0.2},
    }


def message_settings() -> dict[str, Any]:
    return {
        # Results are in the job's row; nothing reads them from Celery.
        "task_ignore_result": True,
        # Without results, beat's daily clean-up task has nothing to do.
        "result_expires": None,
        # JSON only: a message can contain data, never code.
        "task_serializer": "json",
        "accept_content": ["json"],
        # A message goes back to the queue if its process dies; the rows enforce the attempt limit.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        "enable_utc": True,
        "timezone": "UTC",
    }


def worker_settings() -> dict[str, Any]:
    return {
        # With late acknowledgement: one message for each process, and none reserved.
        "worker_prefetch_multiplier": 1,
        # No soft time limit: it raises at any bytecode, even inside a COMMIT.
        "task_time_limit": settings.TASK_TIME_LIMIT_SECONDS,
        # Leases make a second delivery harmless, and cancelling would interrupt like a soft limit.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Nothing is reserved, so there is nothing to reduce. Without this, each lost connection logs that.
        "worker_enable_prefetch_count_reduction": False,
        "worker_concurrency": settings.WORKER_CONCURRENCY,
        # Against memory leaks. Far above a process with a model: its successor loads the model again.
        "worker_max_tasks_per_child": 1000,
        "worker_max_memory_per_child": 3_000_000,  # kB
        # A slow machine needs more than the default 4 s to start a process.
        "worker_proc_alive_timeout": 30,
    }


def queue_settings() -> dict[str, Any]:
    return {
        # All queues are declared, so that a bare `celery -A scribes worker` consumes all of them.
        "task_default_queue": "control",
        "task_queues": [
            # Without its own routing key a queue would also get the default queue's messages.
            Queue(name, routing_key=name)
            for name in QUEUES
        ],
        "task_create_missing_queues": False,
    }


def event_settings() -> dict[str, Any]:
    """What Flower sees.

    No event when a message is sent: it has the task's own name and often arrives after the worker's
    event, so that the message's label would be lost.
    """
    return {"worker_send_task_events": True, "task_send_sent_event": False}


def beat_settings() -> dict[str, Any]:
    return {
        "beat_scheduler": "scribes.monitoring.beat:DatabaseScheduler",
        "beat_schedule": {**heartbeat_schedule(), **work_schedule()},
    }


def heartbeat_schedule() -> dict[str, Any]:
    """One message for each queue: a worker that takes it proves that the queue is consumed."""
    seconds = settings.HEARTBEAT_SECONDS
    return {
        f"heartbeat of {queue}": {
            "task": "scribes.tasks.heartbeat",
            "schedule": float(seconds),
            # A worker that comes back need not take all that were sent meanwhile.
            "options": {"queue": queue, "expires": 6 * seconds},
        }
        for queue in QUEUES
    }


def work_schedule() -> dict[str, Any]:
    """Each message expires when the next one is due: it would have nothing to add."""
    return {
        "reconcile": _every(settings.RECONCILE_SECONDS, "jobs.tasks.reconcile"),
        "retry due deliveries": _every(
            settings.REMINDER_RETRY_SECONDS, "reminders.tasks.retry_due_deliveries"
        ),
        "embed pending notes": _every(PENDING_NOTES_SECONDS, "notes.tasks.embed_pending_notes"),
        "sweep reminders": {
            "task": "reminders.tasks.sweep",
            "schedule": crontab(minute="0,15,30,45"),
            "options": {"expires": SWEEP_EXPIRES_SECONDS},
        },
    }


def _every(seconds: int, task: str) -> dict[str, Any]:
    return {"task": task, "schedule": float(seconds), "options": {"expires": seconds}}


app.add_defaults(configuration)


# --- Workers --------------------------------------------------------------------------------


@setup_logging.connect
def log_like_django(**_: Any) -> None:
    """Use one log format on stdout for all processes, in place of Celery's own on stderr."""
    logging.config.dictConfig(settings.LOGGING)


@celeryd_after_setup.connect
def log_less(instance: Any, **_: Any) -> None:
    """Leave out Celery's banner, which is no log line: log_banner has its facts. Leave out a warning at
    each lost connection, too: it is about the default of a setting that has a value here."""
    instance.quiet = True
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)


@celeryd_after_setup.connect
def sync_concurrency_setting(instance: Any, conf: Any, **_: Any) -> None:
    """Let `worker -c 4` override the setting: the model's threads are divided by it."""
    conf.worker_concurrency = instance.concurrency


@worker_before_create_process.connect
def share_imported_memory(**_: Any) -> None:
    """Keep the garbage collector from unsharing memory between the worker and its processes.

    A new process shares the worker's memory until one of them writes to it. The collector writes to
    every object that it visits, which costs 30 MB per process.
    """
    gc.collect()  # whatever is garbage now would be kept for ever
    gc.freeze()


@worker_process_init.connect
def give_way(**_: Any) -> None:
    """Lower the priority of pool processes: requests of people come before background work when the
    processor is busy. An idle machine runs them as fast as before."""
    if current_process().name != "MainProcess":
        os.nice(settings.WORKER_NICENESS)


@worker_process_init.connect
def detach_from_process_group(**_: Any) -> None:
    """Keep signals to the worker's process group away from its pool.

    honcho and others signal the whole group to stop a worker. A process in the middle of a batch must
    finish it, and the worker waits for that. The pool `solo`, which is for Windows, has no processes
    of its own.
    """
    if current_process().name != "MainProcess":
        os.setpgid(0, 0)


@worker_ready.connect
def catch_up(**_: Any) -> None:
    """Look at once for what was lost while no worker ran, and for what became due meanwhile."""
    messages = [(task, "control") for task in START_TASKS]
    messages += [("scribes.tasks.heartbeat", queue) for queue in QUEUES]
    try:
        for task, queue in messages:
            app.send_task(task, queue=queue, expires=START_EXPIRES_SECONDS)
    except OperationalError as error:
        logger.warning("Redis refuses the first messages, so beat's are waited for: %s", error)


@worker_ready.connect
def log_banner(sender: Any, **_: Any) -> None:
    """One line with what the worker was configured to do. The fields are those of LOG_FIELDS."""
    worker = sender.controller
    fields = {
        "pool": worker.pool_cls.__module__.rpartition(".")[2],
        "concurrency": worker.concurrency,
        "time_limit_seconds": app.conf.task_time_limit,
        "queues": sorted(app.amqp.queues),
        "broker": app.connection().as_uri(),  # masks the password
        "tasks": sorted(name for name in app.tasks if not name.startswith("celery.")),
    }
    logger.info("Worker %s is ready", sender.hostname, extra=fields)
