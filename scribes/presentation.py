"""How pages, commands and the API show states, times and durations."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.contrib.humanize.templatetags.humanize import naturaltime
from django.utils.html import format_html
from django.utils.safestring import SafeString


def badge(state: str, label: str = "") -> SafeString:
    """A state as HTML: its label in the state's colour."""
    return format_html('<span class="badge badge-{}">{}</span>', state, label or state)


def relative_time(at: datetime | None) -> SafeString | str:
    """A time as HTML: “3 minutes ago”, with the exact time in its tooltip."""
    if at is None:
        return "–"
    exact = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', at.isoformat(), exact, naturaltime(at)
    )


def humanize_duration(time: timedelta | float | None) -> str:
    """A duration in its two largest units: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 4 d 1 h.

    A negative one, from clocks that differ, is 0 s.
    """
    if time is None:
        return "–"
    seconds = max(0.0, time.total_seconds() if isinstance(time, timedelta) else time)
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    seconds = round(seconds)
    for size, unit, smaller, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= size:
            return _two_units(seconds, size, unit, smaller, part)
    return f"{seconds} s" if seconds < 60 else _two_units(seconds, 60, "min", 1, "s")


def _two_units(seconds: int, size: int, unit: str, smaller: int, part: str) -> str:
    whole, rest = divmod(seconds, size)
    return f"{whole} {unit} {rest // smaller} {part}" if rest >= smaller else f"{whole} {unit}"


def short_id(key: object) -> str:
    """The first eight characters of a UUID: enough to tell the rows on a page apart."""
    return str(key)[:8]
