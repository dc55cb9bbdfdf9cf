"""Comparing the occurrences of rules with dateutil's, in any time zone."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

from dateutil import tz
from dateutil.rrule import rrulestr

from reminders.recurrence import Recurrence

ZONES = sorted(zoneinfo.available_timezones())
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def wall_time(*numbers: int) -> datetime:
    """A clock time without an offset."""
    return datetime(*numbers)  # type: ignore[arg-type]  # noqa: DTZ001


def check_occurrences(rule: str, start: datetime, zone: ZoneInfo) -> None:
    """Occurrences increase strictly, are dateutil's, and keep the clock time where it exists."""
    occurrences = list(Recurrence(rule, start, zone).all_after(LONG_AGO))
    local_times = list(rrulestr(rule, dtstart=start))
    assert all(earlier < later for earlier, later in pairwise(occurrences))
    aware = [local_time.replace(tzinfo=zone) for local_time in local_times]
    assert occurrences == [tz.resolve_imaginary(local_time).astimezone(UTC) for local_time in aware]
    for local_time, occurrence in zip(local_times, occurrences, strict=True):
        if tz.datetime_exists(local_time, zone):
            assert occurrence.astimezone(zone).replace(tzinfo=None) == local_time


def check_nights(zone: str) -> None:
    """Check every day of seven years, at times at which some zone changes its clocks."""
    for hour, minute in ((0, 0), (0, 30), (1, 30), (2, 0), (2, 30)):
        start = wall_time(2024, 1, 1, hour, minute)
        check_occurrences("FREQ=DAILY;UNTIL=20301231T235959", start, ZoneInfo(zone))
