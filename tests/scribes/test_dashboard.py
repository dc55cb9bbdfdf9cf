"""The admin's front page: its panels, with and without servers and django-unfold."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.db import DatabaseError

from jobs.models import BackgroundJob
from scribes.models import User
from scribes.monitoring import dashboard
from scribes.monitoring.dashboard import Figure, Hour, Panel, latest_hours
from scribes.monitoring.probes.registry import Report
from tests.helpers.factories import make_job
from tests.helpers.processes import environment
from tests.helpers.servers import web_process

PASSWORD = "correct horse battery"


@pytest.fixture
def operator(transactional_db: None) -> User:
    return User.objects.create_superuser("operator@example.com", PASSWORD)


def test_dashboard_does_not_wait_for_a_redis_that_hangs(
    operator: User, silent_port: int, tmp_path: Path
):
    with web_process(tmp_path, REDIS_URL=f"redis://127.0.0.1:{silent_port}/0") as web:
        web.sign_in_to_admin(operator.email, PASSWORD, page="/admin/scribes/user/")
        html = " ".join(web.get("/admin/").text.split())
    queues = html.split('aria-label="Queues"')[1].split("</section>")[0]
    assert "<b>unavailable</b>: no answer within 0.7 s" in queues
    assert "<dt>running</dt>" in html


# --- Panels ---------------------------------------------------------------------------------


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """One panel that can be read, and one that cannot."""

    def good() -> Panel:
        return Panel("", [Figure("lambs", 99)])

    def bad() -> Panel:
        raise DatabaseError("the query took too long")

    panels = [("Sheep", good), ("Goats", bad)]
    sources = [dashboard.Source(title, read, "PostgreSQL") for title, read in panels]
    monkeypatch.setattr(dashboard, "SOURCES", sources)


@pytest.mark.usefixtures("db", "sources")
def test_panel_that_cannot_be_read_hides_no_other_panel():
    sheep, goats = dashboard.panels([Report("PostgreSQL", "ok", "")])
    assert (sheep.title, sheep.figures, sheep.unknown) == ("Sheep", [Figure("lambs", 99)], "")
    assert (goats.title, goats.figures) == ("Goats", ())
    assert goats.unknown == "DatabaseError: the query took too long"


@pytest.mark.usefixtures("sources")
def test_panels_are_not_read_while_their_probe_fails():
    panels = dashboard.panels([Report("PostgreSQL", "fault", "PostgreSQL is down")])
    assert [panel.unknown for panel in panels] == ["PostgreSQL is down"] * 2


def test_latest_hours_have_no_gaps():
    hour = datetime(2026, 3, 1, 9, tzinfo=UTC)
    counts = [(hour, 5, 1), (hour - timedelta(hours=2), 3, 0), (hour - timedelta(days=9), 7, 7)]
    assert latest_hours(counts, hour + timedelta(minutes=59), hours=3) == [
        Hour(hour - timedelta(hours=2), 3, 0),
        Hour(hour - timedelta(hours=1), 0, 0),
        Hour(hour, 5, 1),
    ]


def test_bars_fill_the_chart_at_the_busiest_hour():
    hour = datetime(2026, 3, 1, 9, tzinfo=UTC)
    panel = Panel("", hours=[Hour(hour, 3, 1), Hour(hour, 2, 0), Hour(hour, 0, 0)])
    assert panel.highest == 4
    heights = [(bar["succeeded"], bar["failed"]) for bar in panel.bars]
    assert heights == [(75, 25), (50, 0), (0, 0)]


@pytest.mark.parametrize(("share", "percent"), [(None, None), (0.254, 25), (7.5, 100), (-1, 0)])
def test_figure_percent_stays_within_the_bar(share: float | None, percent: int | None):
    assert Figure("full", "x", share=share).percent == percent


# --- Without django-unfold ------------------------------------------------------------------

WITHOUT_UNFOLD = """
import sys
sys.modules["unfold"] = None
import django
django.setup()
from django.test import Client
from scribes.models import User
client = Client(SERVER_NAME="localhost")
client.force_login(User.objects.get())
for path in sys.argv[1:]:
    response = client.get(path)
    print(response.status_code, response.content.decode())
"""


def test_admin_works_without_unfold(operator: User):
    job = make_job(operator, status="running", total_items=9, processed_items=3)
    jobs = "/admin/jobs/backgroundjob/"
    paths = ["/admin/", jobs, f"{jobs}{job.pk}/change/", "/admin/scribes/user/add/"]
    pages = pages_without_unfold(paths)
    assert "unfold" not in pages
    assert pages.count('aria-valuenow="33"') == 2
    for text in ("3/9 · 33 %", "Needs attention <b>0</b>", "coverage", "/operate/cancel/"):
        assert text in pages
    assert BackgroundJob.objects.get().status == "running"


def pages_without_unfold(paths: list[str]) -> str:
    """The HTML of these pages, one after the other, in a process that cannot import unfold."""
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_UNFOLD, *paths],
        env=environment(),
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("200 <!DOCTYPE html>") == len(paths), result.stdout[:300]
    return result.stdout
