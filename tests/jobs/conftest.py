from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import current_app

from jobs.models import BackgroundJob
from scribes.embedded.addresses import redis_url
from scribes.messaging import broker
from scribes.models import User
from tests.helpers.counting import create_table
from tests.helpers.jobs import batch_ids, run_job, start_counting
from tests.helpers.servers import delete_queues


@pytest.fixture(autouse=True)
def counted_table(request: pytest.FixtureRequest) -> None:
    """The table of the counting jobs, in every test that has a database."""
    if {"db", "transactional_db"} & set(request.fixturenames):
        request.getfixturevalue("alice")
        create_table()


@pytest.fixture
def empty_queues(servers: None) -> None:
    delete_queues()


@pytest.fixture
def refused_redis(empty_queues: None, tmp_path: Path, settings, monkeypatch) -> Iterator[None]:
    """Redis refuses connections."""
    url = redis_url(tmp_path)
    # Celery reads its settings at the first use. They must be read before REDIS_URL changes.
    monkeypatch.setitem(current_app.conf, "broker_url", url.replace("unix://", "redis+socket://"))
    settings.REDIS_URL = url
    _forget_connections()
    yield
    _forget_connections()


def _forget_connections() -> None:
    broker.producers.cache_clear()
    broker.redis_client.cache_clear()


@pytest.fixture
def half_done(alice: User) -> BackgroundJob:
    """A running job with one finished batch and one that waits."""
    return run_job(start_counting(alice, 200), batches=1)


@pytest.fixture
def with_failures(alice: User) -> BackgroundJob:
    """A completed job, three items of which failed."""
    job = start_counting(alice, 30, plans={"3": "raise", "13": "raise", "23": "memory"})
    assert len(batch_ids(job)) == 1
    return run_job(job)
