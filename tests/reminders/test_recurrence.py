"""Rules: in every time zone, across every clock change, as English text, and with bounded cost."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from reminders.recurrence import Recurrence, RuleError
from reminders.rrule_text import describe
from tests.helpers.recurrence import (
    LONG_AGO,
    ZONES,
    check_nights,
    check_occurrences,
    wall_time,
)

BERLIN = ZoneInfo("Europe/Berlin")


def times(rule: str, start: str, zone: str = "Europe/Berlin", limit: int = 5) -> list[str]:
    """The first occurrences as the clocks of the zone show them."""
    recurrence = Recurrence(rule, datetime.fromisoformat(start), ZoneInfo(zone))
    return [f"{moment:%Y-%m-%d %H:%M}" for moment in recurrence.upcoming(LONG_AGO, limit)]


# --- Clocks and calendars -------------------------------------------------------------------


def test_occurrences_keep_their_clock_time_all_year():
    daily = Recurrence("FREQ=DAILY", wall_time(2026, 1, 1, 19), BERLIN)
    year = daily.upcoming(LONG_AGO, 365)
    assert {moment.hour for moment in year} == {19}
    assert {moment.utcoffset() for moment in year} == {timedelta(hours=1), timedelta(hours=2)}


def test_occurrence_moves_forward_when_its_time_does_not_exist():
    assert times("FREQ=DAILY", "2026-03-28T02:30", limit=3) == [
        "2026-03-28 02:30",
        "2026-03-29 03:30",
        "2026-03-30 02:30",
    ]


def test_occurrence_is_the_first_when_its_time_comes_twice():
    daily = Recurrence("FREQ=DAILY", wall_time(2026, 10, 24, 2, 30), BERLIN)
    found = [moment.astimezone(UTC) for moment in daily.upcoming(LONG_AGO, 3)]
    assert found == [
        datetime(2026, 10, 24, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 26, 1, 30, tzinfo=UTC),
    ]


def test_after_returns_a_later_time_than_the_moment():
    daily = Recurrence("FREQ=DAILY", wall_time(2026, 1, 1, 19), BERLIN)
    first = datetime(2026, 1, 1, 18, tzinfo=UTC)
    assert daily.after(first - timedelta(seconds=1)) == first
    assert daily.after(first) == first + timedelta(days=1)


def test_after_finds_a_skipped_time_that_clocks_have_passed():
    """At 03:00 on that day the occurrence of 02:30 is still to come: it fires at 03:30."""
    daily = Recurrence("FREQ=DAILY", wall_time(2026, 3, 1, 2, 30), BERLIN)
    moment = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert daily.after(moment) == moment + timedelta(minutes=30)


def test_counted_rule_ends_after_its_last_occurrence():
    daily = Recurrence("FREQ=DAILY;COUNT=9", wall_time(2026, 1, 1, 19), BERLIN)
    assert daily.after(datetime(2026, 1, 8, 19, tzinfo=UTC)) == datetime(2026, 1, 9, 18, tzinfo=UTC)
    assert daily.after(datetime(2026, 6, 1, tzinfo=UTC)) is None


def test_last_day_of_the_month_is_the_last_day():
    assert times("FREQ=MONTHLY;BYMONTHDAY=-1", "2028-01-31T08:00") == [
        *("2028-01-31 08:00", "2028-02-29 08:00", "2028-03-31 08:00"),
        *("2028-04-30 08:00", "2028-05-31 08:00"),
    ]


def test_day_31_is_skipped_in_shorter_months():
    """RFC 5545, 3.3.10: a day that does not exist is skipped, and later ones do not drift."""
    assert times("FREQ=MONTHLY", "2027-01-31T08:00", limit=3) == [
        *("2027-01-31 08:00", "2027-03-31 08:00", "2027-05-31 08:00"),
    ]


@pytest.mark.parametrize(
    ("until", "last"),
    [
        ("20270103", "2027-01-03 19:00"),
        ("20270103T180000Z", "2027-01-03 19:00"),
        ("20270103T175959Z", "2027-01-02 19:00"),
        ("20270103T190000", "2027-01-03 19:00"),
    ],
)
def test_until_includes_the_last_occurrence(until: str, last: str):
    assert times(f"FREQ=DAILY;UNTIL={until}", "2027-01-01T19:00")[-1] == last


def test_count_starts_at_the_start_of_the_rule():
    counted = Recurrence("FREQ=DAILY;COUNT=3", wall_time(2026, 1, 1, 19), BERLIN)
    assert counted.after(datetime(2026, 1, 3, 12, tzinfo=UTC)) is not None
    assert counted.after(datetime(2026, 1, 3, 19, tzinfo=UTC)) is None


def test_interval_stays_in_step_after_years():
    rule = Recurrence("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR", wall_time(2026, 1, 5, 19), BERLIN)
    late = datetime(2035, 6, 1, tzinfo=UTC)
    expected = [moment for moment in rule.upcoming(LONG_AGO, 1000) if moment > late]
    assert rule.upcoming(late, 5) == expected[:5]


# --- Text -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("FREQ=DAILY", "every day at 19:00"),
        ("FREQ=WEEKLY", "every week on Monday at 19:00"),
        (
            "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,WE,FR;COUNT=10",
            "every 2 weeks on Monday, Wednesday and Friday at 19:00, 10 times",
        ),
        ("FREQ=MONTHLY", "every month on day 30 (skipped where there is none) at 19:00"),
        ("FREQ=MONTHLY;BYMONTHDAY=-1", "every month on the last day at 19:00"),
        ("FREQ=MONTHLY;BYMONTHDAY=1,-2", "every month on day 1 and the second to last day at 19:00"),
        ("FREQ=MONTHLY;BYDAY=-1SU", "every month on the last Sunday at 19:00"),
        ("FREQ=MONTHLY;BYDAY=4TH", "every month on the 4th Thursday at 19:00"),
        (
            "FREQ=MONTHLY;BYDAY=MO,FR;BYSETPOS=-1",
            "every month on Monday and Friday (of these, the last) at 19:00",
        ),
        ("FREQ=YEARLY", "every year on 30 November (skipped where there is none) at 19:00"),
        ("FREQ=YEARLY;BYMONTH=3,10;BYDAY=-1SU", "every year in March and October on the last Sunday at 19:00"),
        ("FREQ=YEARLY;BYYEARDAY=-1", "every year on the last day of the year at 19:00"),
        ("FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO", "every year in week 20 on Monday at 19:00"),
        ("FREQ=DAILY;BYHOUR=7;BYMINUTE=5;UNTIL=20271231", "every day at 07:05, until 2027-12-31"),
    ],
)  # fmt: skip
def test_describe(rule: str, text: str):
    assert describe(Recurrence(rule, wall_time(2026, 11, 30, 19), BERLIN)) == text


# --- Expensive and invalid rules ------------------------------------------------------------

LIST = ",".join(str(n) for n in range(1, 100))

REJECTED = [
    "FREQ=SECONDLY",
    "FREQ=MINUTELY;INTERVAL=1",
    "FREQ=HOURLY",
    "FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30",
    "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
    "FREQ=WEEKLY;BYMONTH=2;BYMONTHDAY=30",
    "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30",
    "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30,31",
    "FREQ=YEARLY;BYYEARDAY=366;BYMONTH=1",
    "FREQ=YEARLY;BYWEEKNO=53;BYMONTH=7",
    "FREQ=DAILY;INTERVAL=7;BYDAY=TU;UNTIL=99991231",
    "FREQ=DAILY;BYHOUR=1,2",
    "FREQ=DAILY;BYMINUTE=0,1,2",
    "FREQ=DAILY;BYSECOND=0,30",
    f"FREQ=DAILY;BYSETPOS={LIST}",
    f"FREQ=WEEKLY;BYDAY=MO;BYSETPOS={LIST}",
    "FREQ=WEEKLY;BYDAY=MO;BYSETPOS=2,3,4,5,6,7,8,9,10,11",
    f"FREQ=DAILY;BYYEARDAY={LIST};BYMONTH=12",
    f"FREQ=YEARLY;BYYEARDAY={LIST};BYMONTH=12",
    "FREQ=MONTHLY;BYDAY=53MO",
    "FREQ=WEEKLY;BYDAY=2MO",
    "FREQ=DAILY;COUNT=1001",
    "FREQ=DAILY;COUNT=0",
    "FREQ=DAILY;COUNT=99999999999999999999",
    "FREQ=DAILY;INTERVAL=0",
    "FREQ=DAILY;INTERVAL=-1",
    "FREQ=DAILY;INTERVAL=100000",
    "FREQ=DAILY;COUNT=2;UNTIL=20300101",
    "FREQ=DAILY;UNTIL=20200101",
    "FREQ=DAILY;UNTIL=tomorrow",
    "FREQ=DAILY;FREQ=DAILY",
    "FREQ=DAILY;BYEASTER=0",
    "FREQ=DAILY;X=1",
    "FREQ=DAILY\nDTSTART:20200101",
    "FREQ=DAILY;BYMONTH=0",
    "FREQ=DAILY;BYMONTH=١",
    "FREQ=DAILY;BYMONTH=13",
    "FREQ=DAILY;BYDAY=XX",
    "FREQ=DAILY;BYDAY=",
    "FREQ=DAILY;;COUNT=1",
    "FREQ",
    "=",
    ";",
    "every day",
    "INTERVAL=2",
    "FREQ=" + "DAILY" * 200,
]


@pytest.mark.parametrize("rule", REJECTED)
def test_preview_rejects_a_rule_quickly_with_a_reason(api: APIClient, rule: str):
    body = {"rrule": rule, "scheduled_at": "2026-11-30T19:00:00Z", "time_zone": "Europe/Berlin"}
    body["scheduled_at"] = f"{datetime.now(UTC).year + 1}-11-29T19:00:00Z"
    seconds = []
    # The fastest of three, as this process may collect the whole suite's garbage during one.
    for _ in range(3):
        start = time.process_time()
        response = api.post("/reminders/preview", body)
        seconds.append(time.process_time() - start)
    assert response.status_code == 400
    assert response.json()["errors"][0]["param"] == "rrule"
    assert response.json()["detail"]
    assert min(seconds) < 0.1


def test_rule_may_fire_rarely():
    assert times("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=SU", "2026-01-01T08:00", limit=1) == [
        "2032-02-29 08:00"
    ]


@given(st.text(alphabet="FREQ=DAILYWKMONTHBSP;:,-+0123456789\n\0é", max_size=80))
def test_any_text_is_a_rule_or_an_error(text: str):
    try:
        Recurrence(text, wall_time(2026, 1, 1, 19), BERLIN).upcoming(LONG_AGO, 2)
    except RuleError as error:
        assert str(error)  # noqa: PT017 both are fine


# --- Every zone -----------------------------------------------------------------------------

SOME_ZONES = [
    *("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"),
    *("Asia/Tehran", "Pacific/Apia", "America/Nuuk", "Africa/Cairo", "UTC"),
]

RULES = st.sampled_from(
    [
        "FREQ=DAILY;UNTIL=20301231T235959",
        "FREQ=DAILY;INTERVAL=3;UNTIL=20301231T235959",
        "FREQ=WEEKLY;BYDAY=SU;UNTIL=20301231T235959",
        "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,SA,SU;UNTIL=20301231T235959",
        "FREQ=MONTHLY;BYMONTHDAY=-1;UNTIL=20301231T235959",
        "FREQ=MONTHLY;UNTIL=20301231T235959",
        "FREQ=MONTHLY;BYDAY=-1SU;UNTIL=20301231T235959",
        "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1;UNTIL=20301231T235959",
        "FREQ=YEARLY;BYMONTH=3,10;BYDAY=-1SU;UNTIL=20301231T235959",
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;UNTIL=20301231T235959",
    ]
)

STARTS = st.datetimes(wall_time(2024, 1, 1), wall_time(2030, 12, 1)).map(
    lambda start: start.replace(second=0, microsecond=0)
)


@settings(max_examples=50)
@given(rule=RULES, start=STARTS, zone=st.sampled_from(ZONES))
def test_occurrences_match_dateutil_in_any_zone(rule: str, start: datetime, zone: str):
    check_occurrences(rule, start, ZoneInfo(zone))


@pytest.mark.parametrize("zone", SOME_ZONES)
def test_occurrences_of_every_night_of_seven_years(zone: str):
    check_nights(zone)
