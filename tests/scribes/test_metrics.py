"""/metrics of a real web process, and the alerts that use it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from django.conf import LazySettings, settings
from django.db import DatabaseError
from django.test import Client
from django.utils import timezone
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from celery_app import QUEUES
from jobs.models import BackgroundJob
from reminders.models import Delivery
from scribes.models import User
from scribes.monitoring import metrics, prometheus_multiprocess
from scribes.monitoring.probes.registry import Report
from tests.helpers.factories import make_job, make_note, make_reminder
from tests.helpers.servers import Web

TOKEN = {"Authorization": f"Bearer {settings.METRICS_TOKEN}"}
KIND = "embedding_regeneration"


class Scraped(NamedTuple):
    values: dict[tuple[str, ...], float]
    """The samples of one name, by the values of their labels in the order of the labels' names."""
    labels: set[str]


def scrape(web: Web) -> dict[str, Scraped]:
    answer = web.get("/metrics", headers=TOKEN)
    assert answer.status_code == 200
    found: dict[str, Scraped] = {}
    for family in text_string_to_metric_families(answer.text):
        found.setdefault(family.name, Scraped({}, set()))
        for sample in family.samples:
            scraped = found.setdefault(sample.name, Scraped({}, set()))
            values = tuple(value for _, value in sorted(sample.labels.items()))
            scraped.values[values] = sample.value
            scraped.labels.update(sample.labels)
    return found


def create_rows(user: User) -> None:
    """A completed job, a queued job, a reminder that is half an hour late, and a failed delivery."""
    now = timezone.now()
    done = make_job(user, status="running", total_items=5, processed_items=3, failed_items=1)
    BackgroundJob.objects.filter(pk=done.pk).update(
        status="completed", started_at=now - timedelta(seconds=10), completed_at=now
    )
    make_job(user, minutes_ago=10)
    reminder = make_reminder(make_note(user), due_in=-timedelta(minutes=30))
    Delivery.objects.create(
        reminder=reminder,
        user=user,
        occurrence_at=now,
        channel="email",
        status="failed",
        next_attempt_at=now,
    )


@pytest.fixture
def scraped(web: Web) -> dict[str, Scraped]:
    """The metrics after one search, with the rows of `create_rows`."""
    web.sign_up("alice@example.com")
    create_rows(User.objects.get())
    assert web.post("/semantic/search", json={"query": "shepherd"}).ok
    return scrape(web)


def test_metrics_have_the_numbers_of_the_tables(scraped: dict[str, Scraped]):
    values = {name: metric.values for name, metric in scraped.items()}
    assert values["scribes_jobs"] == {("completed", KIND): 1, ("queued", KIND): 1}
    assert scraped["scribes_jobs"].labels == {"status", "type"}
    assert values["scribes_job_items"]["processed", KIND] == 3
    assert values["scribes_job_items"]["failed", KIND] == 1
    assert round(values["scribes_job_seconds"]["mean", KIND]) == 10
    assert 600 <= values["scribes_oldest_queued_job_seconds"][()] < 700
    assert set(values["scribes_queue_messages"]) == {(queue,) for queue in QUEUES}
    assert 1800 <= values["scribes_reminder_lateness_seconds"][("sweep",)] < 1900
    assert values["scribes_deliveries"] == {("email", "failed"): 1}
    assert values["scribes_search_seconds_count"][()] == 1
    assert values["scribes_probe"][("PostgreSQL",)] == 1
    assert values["scribes_probe"][("beat",)] == 0
    assert scraped["scribes_probe"].labels == {"probe"}


def test_alerts_use_existing_metrics_and_labels(scraped: dict[str, Scraped]):
    rules = yaml.safe_load((settings.BASE_DIR / "deploy/prometheus/alerts.yml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    used = set()
    for alert in alerts:
        assert {"alert", "expr", "labels", "annotations"} <= set(alert)
        for name, matchers in re.findall(r"\b(scribes_[a-z_]+)(?:\{(.*?)\})?", alert["expr"]):
            assert name in scraped, alert["alert"]
            labels = set(re.findall(r"(\w+)\s*[=!]", matchers))
            assert not scraped[name].values or labels <= scraped[name].labels, alert["alert"]
            used.add(name)
    assert len(used) > 7


@pytest.mark.parametrize("token", ["", "Bearer wrong", "Bearer ü"])
def test_metrics_need_the_token(client: Client, token: str):
    answer = client.get("/metrics", headers={"Authorization": token})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert b"scribes_" not in answer.content


def test_metrics_that_cannot_be_read_hide_no_others(monkeypatch: pytest.MonkeyPatch):
    def bad() -> list[Metric]:
        raise DatabaseError("the query took too long")

    def good() -> list[Metric]:
        return [metrics.gauge("lambs", "Lambs.", ["fold"], [(["north"], 99), (["south"], None)])]

    sources = [metrics.Source(read, "PostgreSQL") for read in (bad, good)]
    monkeypatch.setattr(metrics, "SOURCES", [*sources, metrics.Source(good, "Redis")])
    reports = [Report("PostgreSQL", "ok", ""), Report("Redis", "fault", "Redis is down")]
    monkeypatch.setattr(metrics, "critical_reports", lambda: reports)
    probes, lambs = metrics.RegisteredMetrics().collect()
    assert [sample.value for sample in probes.samples] == [1, 0]
    assert [sample.value for sample in lambs.samples] == [99, 0]


def test_web_deletes_the_metrics_of_dead_processes(
    tmp_path: Path, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    settings.DATA_DIR = tmp_path
    folder = prometheus_multiprocess.folder()
    folder.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    kept, deleted = (folder / f"counter_{pid}.db" for pid in (os.getpid(), ended.pid))
    kept.touch()
    deleted.touch()
    prometheus_multiprocess.enable()
    assert list(folder.iterdir()) == [kept]
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(folder)
