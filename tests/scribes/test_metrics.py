"""/metrics, over HTTP from a real web process, and the alerts that are built on it."""

from __future__ import annotations

import re
from datetime import timedelta

import yaml
from django.conf import settings
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from jobs.models import BackgroundJob
from notes.models import Note
from reminders.models import Delivery, Reminder
from scribes.models import User
from tests.conftest import Web
from tests.jobs.conftest import make_job

NAME = re.compile(r"\bscribes_[a-z_]+")


def scrape(web: Web) -> dict[str, dict[tuple[str, ...], float]]:
    """Number by the values of the labels, which come in the order of their names; by name."""
    headers = {"Authorization": f"Bearer {settings.METRICS_TOKEN}"}
    answer = web.get("/metrics", headers=headers)
    assert answer.status_code == 200
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        found.setdefault(family.name, {})
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def make_rows(user: User) -> None:
    now = timezone.now()
    done = make_job(user, status="running", total_items=5, processed_items=3, failed_items=1)
    BackgroundJob.objects.filter(pk=done.pk).update(
        status="completed", started_at=now - timedelta(seconds=10), completed_at=now
    )
    make_job(user, minutes_ago=10)
    note = Note.objects.create(user=user, title="Psalm 23")
    reminder = Reminder.objects.create(
        user=user,
        note=note,
        scheduled_at=now - timedelta(minutes=30),
        start_date=now.date(),
        start_time=now.time(),
        time_zone="UTC",
    )
    Delivery.objects.create(
        reminder=reminder,
        user=user,
        occurrence_at=now,
        channel="email",
        status="failed",
        next_attempt_at=now,
    )


def test_the_numbers_are_those_of_the_tables(web: Web):
    web.sign_up("alice@example.com")
    make_rows(User.objects.get())
    assert web.post("/semantic/search", json={"query": "shepherd"}).ok
    found = scrape(web)
    kind = "embedding_regeneration"
    assert found["scribes_jobs"] == {("completed", kind): 1, ("queued", kind): 1}
    assert found["scribes_job_items"]["processed", kind] == 3
    assert found["scribes_job_items"]["failed", kind] == 1
    assert round(found["scribes_job_seconds"]["mean", kind]) == 10
    assert 600 <= found["scribes_oldest_queued_job_seconds"][()] < 700
    assert set(found["scribes_queue_messages"]) == {("default",), ("embeddings",), ("reminders",)}
    assert 1800 <= found["scribes_reminder_lateness_seconds"][("sweep",)] < 1900
    assert found["scribes_deliveries"] == {("email", "failed"): 1}
    assert found["scribes_search_seconds_count"][()] == 1
    assert found["scribes_check"][("PostgreSQL",)] == 1
    assert found["scribes_check"][("beat",)] == 0
    assert_alerts_name_what_there_is(found)
    assert_nobody_reads_them_without_the_token(web)


def assert_alerts_name_what_there_is(found: dict[str, dict[tuple[str, ...], float]]) -> None:
    rules = yaml.safe_load((settings.BASE_DIR / "deploy/prometheus/alerts.yml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    for alert in alerts:
        assert {"alert", "expr", "labels", "annotations"} <= set(alert)
        assert set(NAME.findall(alert["expr"])) <= set(found), alert["alert"]
    named = set(NAME.findall(" ".join(alert["expr"] for alert in alerts)))
    assert len(named) > 7


def assert_nobody_reads_them_without_the_token(web: Web) -> None:
    for token in ("", "Bearer wrong", "Bearer ü"):
        answer = web.get("/metrics", headers={"Authorization": token.encode()})
        assert answer.status_code == 401
        assert "scribes_" not in answer.text
