"""When a reminder fires again: RFC 5545 rules in an IANA time zone. No clock and no database.

A rule is expanded in wall-clock time, and each occurrence gets its UTC offset afterwards, so 19:00
stays 19:00 across a clock change. As RFC 5545 (3.3.5) says, a time that a clock change skips is read
with the offset before the change (02:30 becomes 03:30), and a time that comes twice is the first of
the two.

Rules are those of RFC 5545 that fire at most once a day. dateutil expands them, within limits: a
rule without a match in forty years has no occurrence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime, time, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil import rrule

FREQUENCIES = {
    "DAILY": rrule.DAILY,
    "WEEKLY": rrule.WEEKLY,
    "MONTHLY": rrule.MONTHLY,
    "YEARLY": rrule.YEARLY,
}
TOO_FREQUENT = ("SECONDLY", "MINUTELY", "HOURLY")
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
MAX_INTERVAL = 366
MAX_COUNT = 1000
MAX_RULE_CHARACTERS = 500
# 29 February falls on every weekday at least once in this many years.
YEARS_TO_SEARCH = 40
# Each position is looked up in every period that is searched.
MAX_POSITIONS = 10

# The highest number that each part may list; negative numbers count from the end.
RANGES = {"BYMONTHDAY": 31, "BYYEARDAY": 366, "BYWEEKNO": 53, "BYSETPOS": 366}
# Parts that take one number. With several hours, say, a rule would fire more than once a day.
SINGLE = {"COUNT": (1, MAX_COUNT), "BYHOUR": (0, 23), "BYMINUTE": (0, 59), "BYSECOND": (0, 59)}


class RuleError(ValueError):
    """The rule is malformed or not supported; the message says why."""


# Errors for a stored time zone that is no longer valid (ValueError: the name is not a path), and for
# a stored time zone or rule.
INVALID_ZONE = (ZoneInfoNotFoundError, ValueError, OSError)
INVALID_SCHEDULE = (RuleError, *INVALID_ZONE)


def zone_or_utc(name: str) -> ZoneInfo:
    """The time zone, or UTC if it is invalid: for showing a time, UTC is better than nothing."""
    try:
        return ZoneInfo(name)
    except INVALID_ZONE:
        return ZoneInfo("UTC")


@dataclass(frozen=True)
class Recurrence:
    """A rule with its first wall-clock time and its zone. Raises RuleError for an invalid rule."""

    rule: str
    start: datetime
    """Naive. It is an occurrence only if it matches the rule."""
    zone: ZoneInfo

    def __post_init__(self) -> None:
        self.arguments  # noqa: B018 it raises RuleError

    @property
    def parts(self) -> Mapping[str, str]:
        return _parsed(self.rule, self.zone)[0]

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments of dateutil's rrule."""
        return _parsed(self.rule, self.zone)[1]

    def after(self, moment: datetime) -> datetime | None:
        """The first occurrence later than `moment`, both aware; None when there is none."""
        return next(self.all_after(moment), None)

    def upcoming(self, moment: datetime, limit: int) -> list[datetime]:
        """Up to `limit` occurrences later than `moment`, aware, in the rule's zone."""
        found = islice(self.all_after(moment), limit)
        return [occurrence.astimezone(self.zone) for occurrence in found]

    def all_after(self, moment: datetime) -> Iterator[datetime]:
        """All occurrences later than `moment`, in UTC, strictly increasing."""
        latest = moment
        # A clock change moves a time by at most a day.
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
        except _SearchLimitReached:
            return

    def _start_near(self, earliest: datetime) -> datetime:
        """The start, moved forward by whole periods, so a daily rule that has run for years is as
        fast as a new one. A rule with COUNT must be expanded from its start."""
        days = {rrule.DAILY: 1, rrule.WEEKLY: 7}.get(self.arguments["freq"])
        if days is None or "count" in self.arguments:
            return self.start
        period = timedelta(days=days * self.arguments["interval"])
        return self.start + max((earliest - self.start) // period - 1, 0) * period


def to_utc(wall: datetime, zone: ZoneInfo) -> datetime:
    """A naive wall-clock time as an instant in UTC.

    With fold=0 (PEP 495), datetime handles skipped and repeated times as the module says.
    """
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


class _SearchLimitReached(Exception):
    pass


class _BoundedRule(rrule.rrule):
    """dateutil's rrule, with a limited search.

    dateutil looks for the next match until the year 9999. For a rule that never matches, such as
    30 February, that takes seconds.

    dateutil reads `_byeaster` for each month, or for each year of a yearly rule. It is not part of
    RFC 5545 and never set here, so this class counts the reads. If another version of dateutil does
    not read it, the tests with rules that never match fail.
    """

    def __init__(self, **arguments: Any) -> None:
        per_year = 1 if arguments["freq"] == rrule.YEARLY else 12
        self._periods_left = YEARS_TO_SEARCH * per_year
        super().__init__(**arguments)

    @property
    def _byeaster(self) -> None:
        self._periods_left -= 1
        if self._periods_left < 0:
            raise _SearchLimitReached

    @_byeaster.setter
    def _byeaster(self, value: None) -> None:
        pass


# --- Parsing a rule -------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _parsed(rule: str, zone: ZoneInfo) -> tuple[Mapping[str, str], Mapping[str, Any]]:
    """The rule's parts and dateutil's arguments. It is cached, as many users have the same rules."""
    parts = parse(rule)
    return parts, dict(_arguments(parts, zone))


def parse(rule: str) -> dict[str, str]:
    """The parts of a rule by name, in upper case. A prefix "RRULE:" is allowed. Raises RuleError."""
    if len(rule) > MAX_RULE_CHARACTERS:
        raise RuleError(f"The rule is longer than {MAX_RULE_CHARACTERS} characters.")
    parts: dict[str, str] = {}
    for part in rule.strip().upper().removeprefix("RRULE:").rstrip(";").split(";"):
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise RuleError(f"“{part}” is not of the form NAME=VALUE, as in FREQ=DAILY.")
        if name in parts:
            raise RuleError(f"{name} appears twice.")
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
        raise RuleError("BYSETPOS needs a period longer than a day: use FREQ=WEEKLY or longer.")
    if parts["BYSETPOS"].count(",") >= MAX_POSITIONS:
        raise RuleError(f"BYSETPOS takes at most {MAX_POSITIONS} values.")


def _frequency(parts: Mapping[str, str]) -> int:
    frequency = parts.get("FREQ", "")
    if frequency in TOO_FREQUENT:
        raise RuleError(f"FREQ={frequency} is too frequent: a reminder fires at most once a day.")
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
    raise RuleError(f"{name} is not supported in a rule.")


def _number(name: str, text: str, lowest: int, highest: int) -> int:
    signs = "[+-]?" if lowest < 0 else ""
    form = f"{signs}0?[0-9]|{signs}[1-9][0-9]{{1,3}}"
    if not re.fullmatch(form, text) or not lowest <= int(text) <= highest:
        raise RuleError(f"{name} must be one number from {lowest} to {highest}.")
    return int(text)


def _numbers(name: str, value: str, lowest: int, highest: int) -> list[int]:
    numbers = [_number(f"Each {name} value", text, lowest, highest) for text in value.split(",")]
    if 0 in numbers:
        raise RuleError(f"{name} counts from 1, or backwards from -1.")
    return numbers


def _weekday(text: str) -> rrule.weekday:
    if text not in WEEKDAYS:
        raise RuleError(f"“{text}” is not a weekday. Use {', '.join(WEEKDAYS)}.")
    return rrule.weekday(WEEKDAYS.index(text))


def _nth_weekday(text: str, parts: Mapping[str, str]) -> rrule.weekday:
    """Parse MO, or -1SU: the last Sunday of the month or of the year."""
    weekday = _weekday(text[-2:])
    if not text[:-2]:
        return weekday
    if parts["FREQ"] not in ("MONTHLY", "YEARLY"):
        raise RuleError(f"BYDAY={text} needs FREQ=MONTHLY or FREQ=YEARLY.")
    weeks = 53 if parts["FREQ"] == "YEARLY" and "BYMONTH" not in parts else 5
    (nth,) = _numbers("BYDAY", text[:-2], -weeks, weeks)
    return weekday(nth)


def _until(text: str, zone: ZoneInfo) -> datetime:
    """The end as a naive wall-clock time; a date without a time includes the whole day."""
    for form in ("%Y%m%d", "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%SZ"):
        try:
            until = datetime.strptime(text, form)  # noqa: DTZ007 made aware below if it ends in Z
        except ValueError:
            continue
        if form == "%Y%m%d":
            return datetime.combine(until, time.max)
        if form.endswith("Z") and 1 < until.year < MAXYEAR:
            return until.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None)
        return until
    raise RuleError("UNTIL must be like 20271231, 20271231T190000 or 20271231T180000Z.")
