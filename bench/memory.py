"""The memory of the processes in the Procfile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench import corpus
from bench.jobs import regenerate, worker_process
from bench.measure import Line, no_target
from bench.processes import Process, running
from bench.web import Client, sign_up, web_process
from scribes.embedded.ports import free_port

NOTES = 500
# beat and Flower say nothing when they are ready.
SETTLE_SECONDS = 6


def run() -> Iterator[Line]:
    with ExitStack() as stack:
        web = stack.enter_context(web_process())
        worker = stack.enter_context(worker_process("worker"))
        yield memory_of("web, two processes", web.process)
        yield memory_of("worker, parent and two processes", worker)
        yield memory_of("beat", stack.enter_context(settled("beat")))
        yield memory_of("Flower", stack.enter_context(settled("flower")))
        user, token = sign_up(web.port, "memory@example.com")
        corpus.make_notes(user, corpus.texts(NOTES))
        regenerate(user)
        yield memory_of("worker, after a regeneration", worker)
        while not all_have_the_model(web.process):
            Client(web.port, token).call("POST", "/semantic/search", {"query": "rest"})
        yield memory_of("web, after searches", web.process)


def memory_of(name: str, process: Process) -> Line:
    sizes = f"{process.pss_mb():.0f} MB, {process.rss_mb():.0f} MB"
    return no_target(f"memory of {name}: PSS, RSS", sizes)


def all_have_the_model(web: Process) -> bool:
    _, *children = web.family()
    return all(
        any("openvino" in mapped.path for mapped in child.memory_maps()) for child in children
    )


@contextmanager
def settled(program: str) -> Iterator[Process]:
    """beat or Flower as the Procfile starts it, once its memory has settled."""
    command = ["celery", "-A", "scribes", program]
    with running(program, command, FLOWER_PORT=str(free_port())) as process:
        time.sleep(SETTLE_SECONDS)
        yield process
