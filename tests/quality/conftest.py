"""`pytest tests/quality --quality`, which is `make quality`."""

from __future__ import annotations

from pathlib import Path

import pytest

table: list[tuple[str, ...]] = []


@pytest.fixture(scope="session")
def lines() -> list[tuple[str, ...]]:
    """Of the table that is printed at the end."""
    return table


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--quality"):
        ours = [item for item in items if Path(__file__).parent in item.path.parents]
        items[:] = [item for item in items if item not in ours]
        config.hook.pytest_deselected(items=ours)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if table:
        terminalreporter.section("quality")
        for row in [("search by", "nDCG@10", "recall@10"), ("---",) * 3, *table]:
            terminalreporter.write_line("| " + " | ".join(row) + " |")
