"""The only way to send a message: on commit, to a task by its name.

A message is a hint that a row needs work. The rows say what that work is, so a message may be lost,
late or repeated. Tasks are named by strings, as in beat's schedule: a module that publishes need not
import the task that imports it. tests/jobs/test_publishing.py checks that each name is a task.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction

from scribes.messaging import broker

# While other messages wait in a queue, a message without effect is probably still waiting, too.
# Then it counts as lost only after this many times JOB_REPUBLISH_SECONDS.
BUSY_QUEUE_REPUBLISH_FACTOR = 10


def publish(task_name: str, *args: Any, queue: str, label: str) -> None:
    """Send a message once the transaction commits.

    `label` is what operators read in Flower and in `manage.py queues`. It must not hold the text of a
    note or an e-mail address.

    A broker that is down or slow costs at most three times broker.TIMEOUT_SECONDS and one line in
    the log. The caller is not told: the row stays as it is, and the reconciler publishes again.
    """
    transaction.on_commit(partial(broker.send, task_name, args, queue, label), robust=True)


def republish_after(queue: str) -> int:
    """Seconds after which a message in this queue that had no effect is presumed lost.

    Raises redis.RedisError when Redis does not answer.
    """
    seconds: int = settings.JOB_REPUBLISH_SECONDS
    return seconds * BUSY_QUEUE_REPUBLISH_FACTOR if broker.queue_length(queue) else seconds
