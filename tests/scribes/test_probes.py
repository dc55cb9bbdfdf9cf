"""scribes.monitoring.probes: how probes are registered and run."""

from __future__ import annotations

import time
from threading import Event

import pytest

from scribes.monitoring.probes import critical, registry
from scribes.monitoring.probes.registry import (
    PROBES,
    Probe,
    ProbeFailed,
    Report,
    mask_passwords,
    register,
    run,
)
from tests.helpers.processes import LONGEST_WAIT_SECONDS


@pytest.fixture(autouse=True)
def probes(monkeypatch: pytest.MonkeyPatch) -> list[Probe]:
    """The registry, empty for the length of a test."""
    probes: list[Probe] = []
    monkeypatch.setattr(registry, "PROBES", probes)
    return probes


def works() -> str:
    return "fine"


def fails() -> str:
    raise ProbeFailed("It leaks", "the roof", "mend the roof")


def crashes() -> str:
    raise RuntimeError("no route to redis://:s3cret@host")


def states(probes: list[Probe], seconds: float = 5) -> dict[str, str]:
    return {report.name: report.state for report in run(probes, seconds)}


# --- Registering ----------------------------------------------------------------------------


def test_register_adds_a_probe_and_returns_the_function(probes: list[Probe]):
    assert register("roof", group="house", needs=["walls"], critical=True)(works) is works
    register("cellar")(works)
    assert probes == [
        Probe("roof", works, "house", ["walls"], True, False),
        Probe("cellar", works, "cellar", (), False, False),
    ]


def test_register_rejects_a_name_that_is_taken(probes: list[Probe]):
    register("roof")(works)
    with pytest.raises(ValueError, match="There is already a probe called roof"):
        register("roof", group="other")(fails)
    assert len(probes) == 1


def test_registered_probes_need_probes_of_their_own_group():
    """`needs` of another group would have no effect: the groups run at the same time."""
    assert PROBES
    groups = {probe.name: probe.group for probe in PROBES}
    for probe in PROBES:
        assert {groups[name] for name in probe.needs} <= {probe.group}, probe.name


# --- Running --------------------------------------------------------------------------------


def test_run_reports_every_probe_in_order(probes: list[Probe]):
    register("roof", group="house")(fails)
    register("garden")(works)
    register("walls", group="house")(works)
    assert run(probes, 5) == [
        Report("roof", "fault", "It leaks", "the roof", "mend the roof"),
        Report("garden", "ok", "fine"),
        Report("walls", "ok", "fine"),
    ]


def test_run_reports_a_crash_as_a_fault_and_hides_nothing(probes: list[Probe]):
    register("before", group="house")(fails)
    register("crash", group="house")(crashes)
    register("after", group="house")(fails)
    register("garden")(works)
    before, crash, after, garden = run(probes, 5)
    assert crash.is_fault
    assert crash.message == "The probe failed: RuntimeError: no route to redis://:***@host"
    assert (before.message, after.message) == ("It leaks", "It leaks")
    assert garden.state == "ok"


@pytest.mark.parametrize("broken", [fails, crashes])
def test_run_skips_probes_that_need_a_failed_one(
    probes: list[Probe], broken: registry.ProbeFunction
):
    register("walls", group="house")(broken)
    register("roof", group="house", needs=["walls"])(works)
    register("chimney", group="house", needs=["walls", "roof"])(works)
    register("garden", group="house")(works)
    assert states(probes) == {
        "walls": "fault",
        "roof": "skipped",
        "chimney": "skipped",
        "garden": "ok",
    }
    assert run(probes, 5)[2].message == "skipped: it needs walls and roof"


def test_run_ignores_needs_of_probes_that_do_not_run(probes: list[Probe]):
    register("walls", group="house")(fails)
    register("roof", group="house", needs=["walls"])(works)
    assert states(probes[1:]) == {"roof": "ok"}


def test_run_gives_up_on_probes_that_hang(probes: list[Probe]):
    end = Event()

    def hangs() -> str:
        end.wait(LONGEST_WAIT_SECONDS)
        return "late"

    register("walls", group="house")(hangs)
    register("roof", group="house", needs=["walls"])(works)
    register("garden")(works)
    start = time.monotonic()
    try:
        walls, roof, garden = run(probes, 0.2)
    finally:
        end.set()
    # It takes 0.2 s, and the probe itself far longer.
    assert time.monotonic() - start < LONGEST_WAIT_SECONDS / 10
    assert (walls.state, walls.message) == ("fault", "no answer within 0.2 s")
    assert (roof.state, garden.state) == ("skipped", "ok")


# --- The critical ones ----------------------------------------------------------------------


@pytest.fixture
def no_kept_reports(probes: list[Probe], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critical, "PROBES", probes)
    monkeypatch.setattr(critical, "_latest", None)


@pytest.mark.usefixtures("no_kept_reports")
def test_critical_reports_leave_out_other_probes():
    register("walls", critical=True)(works)
    register("garden")(works)
    assert [report.name for report in critical.critical_reports()] == ["walls"]


@pytest.mark.usefixtures("no_kept_reports")
def test_critical_reports_are_kept_for_a_moment(monkeypatch: pytest.MonkeyPatch):
    calls = []

    @register("walls", critical=True)
    def walls() -> str:
        calls.append(1)
        return "fine"

    first = critical.critical_reports()
    assert critical.critical_reports() is first
    monkeypatch.setattr(critical, "KEEP_SECONDS", -1)
    assert critical.critical_reports() == first
    assert len(calls) == 2


# --- Passwords ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("redis://:s3cret@host:6379/0", "redis://:***@host:6379/0"),
        ("postgresql://me:s3cret@host/db", "postgresql://me:***@host/db"),
        ("unix:///x.sock?password=s3cret&db=1", "unix:///x.sock?password=***&db=1"),
        ("smtp://a:b@c and smtp://d:e@f", "smtp://a:***@c and smtp://d:***@f"),
        ("postgresql:///db?host=/run&user=me", "postgresql:///db?host=/run&user=me"),
    ],
)
def test_mask_passwords_hides_the_passwords_of_urls(text: str, masked: str):
    assert mask_passwords(text) == masked
