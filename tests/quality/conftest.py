"""`make quality` runs `pytest tests/quality --quality`, which prints a table at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

rows: list[tuple[str, ...]] = []


@pytest.fixture(scope="session")
def table() -> list[tuple[str, ...]]:
    """The rows of the table, to which tests add theirs."""
    return rows


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--quality"):
        own = [item for item in items if Path(__file__).parent in item.path.parents]
        items[:] = [item for item in items if item not in own]
        config.hook.pytest_deselected(items=own)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if rows:
        terminalreporter.section("quality")
        for row in [("search", "nDCG@10", "recall@10"), ("---",) * 3, *rows]:
            terminalreporter.write_line("| " + " | ".join(row) + " |")
