"""What the processes of the Procfile hold in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from django.conf import settings

from bench import corpus
from bench.jobs import MEGABYTE, family, regenerate, resident_mb, worker
from bench.measure import Line, told
from bench.web import Client, serving_web, sign_up
from tests.processes import Process, environment, free_port, running

NOTES = 500
SETTLED_SECONDS = 6


def run() -> Iterator[Line]:
    with ExitStack() as stack:
        web = stack.enter_context(serving_web())
        workers = stack.enter_context(worker("worker"))
        yield size("web, two processes", web.process)
        yield size("worker, its parent and two processes", workers)
        yield size("beat", stack.enter_context(light("beat")))
        yield size("Flower", stack.enter_context(light("flower")))
        user, token = sign_up(web.port, "memory@example.com")
        corpus.make_notes(user, corpus.texts(NOTES))
        regenerate(user)
        yield size("worker, after a regeneration", workers)
        while not all_have_the_model(web.process):
            Client(web.port, token).call("POST", "/semantic/search", {"query": "rest"})
        yield size("web, after searches", web.process)


def size(what: str, process: Process) -> Line:
    rss = sum(member.memory_info().rss for member in family(process)) / MEGABYTE
    return told(f"memory of {what}: PSS, RSS", f"{resident_mb(process):.0f} MB, {rss:.0f} MB")


def all_have_the_model(web: Process) -> bool:
    _, *processes = family(web)
    return all(
        any("openvino" in mapped.path for mapped in process.memory_maps()) for process in processes
    )


@contextmanager
def light(name: str) -> Iterator[Process]:
    """beat or Flower, as the Procfile starts it, once it has settled."""
    env = environment(FLOWER_PORT=str(free_port()))
    with running(
        ["celery", "-A", "scribes", name], settings.DATA_DIR / f"{name}.log", env
    ) as process:
        time.sleep(SETTLED_SECONDS)
        yield process
