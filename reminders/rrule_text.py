"""Recurrence rules as English text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, time

from reminders.recurrence import WEEKDAYS, Recurrence

UNITS = {"DAILY": "day", "WEEKLY": "week", "MONTHLY": "month", "YEARLY": "year"}
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
DAY_NAMES = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
ORDINALS = {1: "first", 2: "second", 3: "third", -1: "last"}


def describe(recurrence: Recurrence) -> str:
    """The rule in English: "every 2 weeks on Monday and Friday at 19:00, 10 times"."""
    parts = recurrence.parts
    pieces = [_every(parts), _months(parts), _days(parts, recurrence.start), _positions(parts)]
    pieces.append(f"at {_time_of_day(parts, recurrence.start):%H:%M}")
    return " ".join(filter(None, pieces)) + _end(recurrence)


def _every(parts: Mapping[str, str]) -> str:
    unit = UNITS[parts["FREQ"]]
    interval = int(parts.get("INTERVAL", "1"))
    return f"every {unit}" if interval == 1 else f"every {interval} {unit}s"


def _months(parts: Mapping[str, str]) -> str:
    if "BYMONTH" not in parts:
        return ""
    return "in " + _listed([MONTHS[int(month) - 1] for month in parts["BYMONTH"].split(",")])


def _days(parts: Mapping[str, str], start: datetime) -> str:
    """The days of the rule. A rule that names no days fires on the day of its start."""
    named = [_named_days(name, value) for name, value in parts.items() if name in DAY_PARTS]
    if named:
        return " ".join(named)
    if parts["FREQ"] == "WEEKLY":
        return f"on {DAY_NAMES[start.weekday()]}"
    if parts["FREQ"] == "DAILY":
        return ""
    month = (
        f" {MONTHS[start.month - 1]}" if parts["FREQ"] == "YEARLY" and not _months(parts) else ""
    )
    skips = " (skipped where there is none)" if start.day > 28 else ""
    return f"on {start.day}{month}{skips}" if month else f"on day {start.day}{skips}"


DAY_PARTS = ("BYDAY", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO")


def _named_days(name: str, value: str) -> str:
    values = value.split(",")
    if name == "BYDAY":
        return "on " + _listed([_day_name(text) for text in values])
    if name == "BYWEEKNO":
        return "in " + _listed([_nth(int(text), "week") for text in values])
    of = " of the year" if name == "BYYEARDAY" else ""
    return "on " + _listed([_nth(int(text), "day") for text in values]) + of


def _day_name(text: str) -> str:
    day = DAY_NAMES[WEEKDAYS.index(text[-2:])]
    return f"the {_ordinal(int(text[:-2]))} {day}" if text[:-2] else day


def _nth(number: int, noun: str) -> str:
    return f"{noun} {number}" if number > 0 else f"the {_ordinal(number)} {noun}"


def _ordinal(number: int) -> str:
    if number in ORDINALS:
        return ORDINALS[number]
    return f"{number}th" if number > 0 else f"{_ordinal(-number)} to last"


def _positions(parts: Mapping[str, str]) -> str:
    if "BYSETPOS" not in parts:
        return ""
    positions = [f"the {_ordinal(int(text))}" for text in parts["BYSETPOS"].split(",")]
    return f"(of these, {_listed(positions)})"


def _time_of_day(parts: Mapping[str, str], start: datetime) -> time:
    own = (start.hour, start.minute)
    names = ("BYHOUR", "BYMINUTE")
    hour, minute = (int(parts.get(name, default)) for name, default in zip(names, own, strict=True))
    return time(hour, minute)


def _end(recurrence: Recurrence) -> str:
    arguments = recurrence.arguments
    if "count" in arguments:
        return ", once" if arguments["count"] == 1 else f", {arguments['count']} times"
    if "until" in arguments:
        return f", until {arguments['until']:%Y-%m-%d}"
    return ""


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
