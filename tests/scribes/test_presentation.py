"""scribes.presentation: states, times and durations as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.utils import timezone
from django.utils.safestring import SafeString

from scribes.presentation import badge, humanize_duration, relative_time, short_id


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.04, "0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (12.4, "12 s"),
        (59, "59 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (3659, "1 h"),
        (7800, "2 h 10 min"),
        (86400, "1 d"),
        (349_200, "4 d 1 h"),
    ],
)
def test_humanize_duration_uses_the_two_largest_units(seconds: float, text: str):
    assert humanize_duration(seconds) == text
    assert humanize_duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize("seconds", [-0.01, -1.1, -90])
def test_humanize_duration_of_a_negative_time_is_zero(seconds: float):
    assert humanize_duration(seconds) == "0 s"


@pytest.mark.parametrize(("seconds", "text"), [(9.96, "10 s"), (59.6, "1 min")])
def test_humanize_duration_rounds_up_to_the_next_unit(seconds: float, text: str):
    assert humanize_duration(seconds) == text


def test_unknown_times_and_durations_are_a_dash():
    assert humanize_duration(None) == "–"
    assert relative_time(None) == "–"


def test_relative_time_has_the_exact_time_as_its_tooltip():
    at = timezone.now() - timedelta(minutes=3, seconds=1)
    html = relative_time(at)
    assert isinstance(html, SafeString)
    assert html.replace("\xa0", " ").endswith(">3 minutes ago</time>")
    assert f'datetime="{at.isoformat()}"' in html
    exact = relative_time(datetime(2026, 3, 1, 9, 5, 7, tzinfo=UTC))
    assert 'title="2026-03-01 09:05:07 UTC"' in exact


def test_badge_shows_its_label_or_its_state():
    assert badge("failed") == '<span class="badge badge-failed">failed</span>'
    assert badge("ok", "done") == '<span class="badge badge-ok">done</span>'
    assert "<b>" not in badge("ok", "<b>")


def test_short_id_is_the_start_of_a_uuid():
    assert short_id(UUID("0f8fad5b-d9cb-469f-a165-70867728950e")) == "0f8fad5b"
