"""When a reminder fires again: RFC 5545 rules in an IANA time zone. Pure: no clock, no database.

A rule is expanded in wall-clock time, and each occurrence is given its offset afterwards, so that
19:00 stays 19:00 across a clock change. As RFC 5545 (3.3.5) has it, a time that a change leaves out
is read with the offset before the change (02:30 becomes 03:30), and one that comes twice is the
first of the two.

The rules are those of RFC 5545 that fire at most once a day. The expansion is dateutil's, with an
end: a rule that finds nothing within forty years has no occurrence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime, time, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from dateutil import rrule

FREQUENCIES = {
    "DAILY": rrule.DAILY,
    "WEEKLY": rrule.WEEKLY,
    "MONTHLY": rrule.MONTHLY,
    "YEARLY": rrule.YEARLY,
}
TOO_DENSE = ("SECONDLY", "MINUTELY", "HOURLY")
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
MAX_INTERVAL = 366
MAX_COUNT = 1000
MAX_RULE_CHARACTERS = 500
# 29 February falls on a given day of the week within so many.
YEARS_TO_SEARCH = 40
# Each position costs a look at every period searched.
MAX_POSITIONS = 10

# The numbers that each part may list, from 1 or -1 on.
RANGES = {"BYMONTHDAY": 31, "BYYEARDAY": 366, "BYWEEKNO": 53, "BYSETPOS": 366}
# One value, or the rule would fire more often than once a day.
SINGLE = {"COUNT": (1, MAX_COUNT), "BYHOUR": (0, 23), "BYMINUTE": (0, 59), "BYSECOND": (0, 59)}


class RuleError(ValueError):
    """The rule is malformed, or of a kind that is refused; the message says why."""


@dataclass(frozen=True)
class Recurrence:
    """A rule with its first wall-clock time and its zone. Raises RuleError if it is no rule."""

    rule: str
    start: datetime
    """Naive. An occurrence only if it matches the rule."""
    zone: ZoneInfo

    def __post_init__(self) -> None:
        self.arguments  # noqa: B018 raises RuleError

    @property
    def parts(self) -> Mapping[str, str]:
        return _read(self.rule, self.zone)[0]

    @property
    def arguments(self) -> Mapping[str, Any]:
        """For dateutil's rrule."""
        return _read(self.rule, self.zone)[1]

    def after(self, moment: datetime) -> datetime | None:
        """The first occurrence later than `moment`, both aware; None when there is none."""
        return next(self.all_after(moment), None)

    def upcoming(self, moment: datetime, number: int) -> list[datetime]:
        """At most so many occurrences later than `moment`, aware, in the rule's zone."""
        found = islice(self.all_after(moment), number)
        return [occurrence.astimezone(self.zone) for occurrence in found]

    def all_after(self, moment: datetime) -> Iterator[datetime]:
        """In UTC, strictly increasing."""
        latest = moment
        # No change of clocks moves a time by more than a day.
        local = moment.astimezone(self.zone).replace(tzinfo=None) - timedelta(days=1)
        for wall in self._expand(local):
            occurrence = to_utc(wall, self.zone)
            if occurrence > latest:
                latest = occurrence
                yield occurrence

    def _expand(self, earliest: datetime) -> Iterator[datetime]:
        expansion = _BoundedRule(dtstart=self._start_near(earliest), **self.arguments)
        try:
            yield from expansion.xafter(earliest, inc=True)
        except _FoundNothing:
            return

    def _start_near(self, earliest: datetime) -> datetime:
        """The start, moved on by whole periods, so that a daily rule that has run for years is as
        quick as a new one. What is counted must be counted from the start."""
        days = {rrule.DAILY: 1, rrule.WEEKLY: 7}.get(self.arguments["freq"])
        if days is None or "count" in self.arguments:
            return self.start
        period = timedelta(days=days * self.arguments["interval"])
        return self.start + max((earliest - self.start) // period - 1, 0) * period


def to_utc(wall: datetime, zone: ZoneInfo) -> datetime:
    """A naive wall-clock time as an instant; for those that do not exist, or twice, see above.

    That is what datetime does with fold=0 (PEP 495).
    """
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


class _FoundNothing(Exception):
    pass


class _BoundedRule(rrule.rrule):
    """dateutil looks for the next match until the year 9999: for a rule that never matches, such as
    30 February, that takes seconds. This one gives up.

    It looks at `_byeaster`, which is not of RFC 5545 and never set here, at each new month, or each
    new year of a yearly rule. Should another dateutil do without, the tests' bombs go off.
    """

    def __init__(self, **arguments: Any) -> None:
        per_year = 1 if arguments["freq"] == rrule.YEARLY else 12
        self._looks_left = YEARS_TO_SEARCH * per_year
        super().__init__(**arguments)

    @property
    def _byeaster(self) -> None:
        self._looks_left -= 1
        if self._looks_left < 0:
            raise _FoundNothing

    @_byeaster.setter
    def _byeaster(self, value: None) -> None:
        pass


# --- Reading a rule -------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _read(rule: str, zone: ZoneInfo) -> tuple[Mapping[str, str], Mapping[str, Any]]:
    """Its parts and dateutil's arguments; many people have the same rules."""
    parts = parse(rule)
    return parts, dict(_arguments(parts, zone))


def parse(rule: str) -> dict[str, str]:
    """The parts of a rule by name, in upper case. Raises RuleError.

    "RRULE:" in front is allowed.
    """
    if len(rule) > MAX_RULE_CHARACTERS:
        raise RuleError(f"The rule is longer than {MAX_RULE_CHARACTERS} characters.")
    parts: dict[str, str] = {}
    for part in rule.strip().upper().removeprefix("RRULE:").rstrip(";").split(";"):
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise RuleError(f"“{part}” is not of the form NAME=VALUE, as in FREQ=DAILY.")
        if name in parts:
            raise RuleError(f"{name} is there twice.")
        parts[name] = value
    return parts


def _arguments(parts: Mapping[str, str], zone: ZoneInfo) -> Iterator[tuple[str, Any]]:
    if "COUNT" in parts and "UNTIL" in parts:
        raise RuleError("COUNT and UNTIL exclude each other.")
    if "BYSETPOS" in parts:
        _check_positions(parts)
    yield "freq", _frequency(parts)
    yield "interval", _number("INTERVAL", parts.get("INTERVAL", "1"), 1, MAX_INTERVAL)
    for name, value in parts.items():
        if name not in ("FREQ", "INTERVAL"):
            yield _argument(name, value, parts, zone)


def _check_positions(parts: Mapping[str, str]) -> None:
    if parts.get("FREQ") == "DAILY":
        raise RuleError("BYSETPOS needs a longer period than a day.")
    if parts["BYSETPOS"].count(",") >= MAX_POSITIONS:
        raise RuleError(f"BYSETPOS takes at most {MAX_POSITIONS} values.")


def _frequency(parts: Mapping[str, str]) -> int:
    frequency = parts.get("FREQ", "")
    if frequency in TOO_DENSE:
        raise RuleError(f"FREQ={frequency} is too dense: a reminder fires at most once a day.")
    if frequency not in FREQUENCIES:
        raise RuleError(f"FREQ must be one of {', '.join(FREQUENCIES)}.")
    return FREQUENCIES[frequency]


def _argument(name: str, value: str, parts: Mapping[str, str], zone: ZoneInfo) -> tuple[str, Any]:
    if name in RANGES:
        return name.lower(), _numbers(name, value, -RANGES[name], RANGES[name])
    if name in SINGLE:
        return name.lower(), _number(name, value, *SINGLE[name])
    if name == "UNTIL":
        return "until", _until(value, zone)
    if name == "WKST":
        return "wkst", _weekday(value)
    if name == "BYDAY":
        return "byweekday", [_nth_weekday(text, parts) for text in value.split(",")]
    if name == "BYMONTH":
        return "bymonth", _numbers(name, value, 1, 12)
    raise RuleError(f"{name} is not a part of a rule.")


def _number(name: str, text: str, lowest: int, highest: int) -> int:
    signs = "[+-]?" if lowest < 0 else ""
    form = f"{signs}0?[0-9]|{signs}[1-9][0-9]{{1,3}}"
    if not re.fullmatch(form, text) or not lowest <= int(text) <= highest:
        raise RuleError(f"{name} must be one number from {lowest} to {highest}.")
    return int(text)


def _numbers(name: str, value: str, lowest: int, highest: int) -> list[int]:
    numbers = [_number(f"Each of {name}", text, lowest, highest) for text in value.split(",")]
    if 0 in numbers:
        raise RuleError(f"{name} counts from 1, or from -1 for the last.")
    return numbers


def _weekday(text: str) -> rrule.weekday:
    if text not in WEEKDAYS:
        raise RuleError(f"“{text}” is not a day of the week: {', '.join(WEEKDAYS)}.")
    return rrule.weekday(WEEKDAYS.index(text))


def _nth_weekday(text: str, parts: Mapping[str, str]) -> rrule.weekday:
    """As in MO, or -1SU: the last Sunday of the month, or of the year."""
    weekday = _weekday(text[-2:])
    if not text[:-2]:
        return weekday
    if parts["FREQ"] not in ("MONTHLY", "YEARLY"):
        raise RuleError(f"BYDAY={text} needs FREQ=MONTHLY or FREQ=YEARLY.")
    weeks = 53 if parts["FREQ"] == "YEARLY" and "BYMONTH" not in parts else 5
    (nth,) = _numbers("BYDAY", text[:-2], -weeks, weeks)
    return weekday(nth)


def _until(text: str, zone: ZoneInfo) -> datetime:
    """As a naive wall-clock time; of a date the whole day is meant."""
    for form in ("%Y%m%d", "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%SZ"):
        try:
            until = datetime.strptime(text, form)  # noqa: DTZ007 made aware below where it has a Z
        except ValueError:
            continue
        if form == "%Y%m%d":
            return datetime.combine(until, time.max)
        if form.endswith("Z") and 1 < until.year < MAXYEAR:
            return until.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None)
        return until
    raise RuleError("UNTIL must be like 20271231, 20271231T190000 or 20271231T180000Z.")


# --- In words -------------------------------------------------------------------------------

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


def in_words(recurrence: Recurrence) -> str:
    """In English: "every 2 weeks on Monday and Friday at 19:00, 10 times"."""
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
    """Which days; where the rule names none, they are the start's."""
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
