"""The table of all parts: printed while it grows, saved as JSON, and shown as docs/benchmarks.md.

Each part has its own time and load, because its ratios were measured in one run. Measuring a part
again replaces only its own lines.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine
from bench.measure import Line

# The load below which a run has the machine to itself.
QUIET_LOAD = 0.7
HEAD = ("measurement", "Scribes", "peer", "peer's result", "ratio", "target", "met")


def show(line: Line) -> Line:
    print(" | ".join(row(line)), flush=True)
    return line


def row(line: Line) -> list[str]:
    met = _verdict(line) if line.target else ""
    ratio = f"{line.ratio:.4g}" if line.theirs else ""
    return [line.title, line.ours, line.peer, line.theirs, ratio, line.target, met]


def _verdict(line: Line) -> str:
    if line.is_met:
        return "yes"
    return f"no: the limit here is {line.limit:.3g}" if _is_out_of_reach(line) else "**no**"


def _is_out_of_reach(line: Line) -> bool:
    return not line.is_met and 0 < line.limit < float(line.target.split()[1])


def save(folder: Path, part: str, lines: list[Line], load: float) -> None:
    """Save the lines of a part. Results of another machine are dropped."""
    results = _read(folder)
    if results["cpu"] != machine.cpu():
        results = _no_results()
    results["parts"].pop(part, None)  # the part measured last comes last
    results["parts"][part] = {
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "load_before": round(load, 2),
        "lines": [line._asdict() for line in lines],
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (folder / "benchmarks.json").write_text(text + "\n")


def _read(folder: Path) -> dict[str, Any]:
    file = folder / "benchmarks.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else _no_results()
    return results


def _no_results() -> dict[str, Any]:
    return {"cpu": machine.cpu(), "bf16": sorted(machine.bf16_features()), "parts": {}}


# --- The page -------------------------------------------------------------------------------

PAGE = """# Benchmarks

`make bench` measures Scribes side by side with its peers and writes this page. `make bench
PARTS="encode search"` measures only some parts again.

Scribes and its peer are timed in turn in one run, because absolute times mean little on a shared
machine. What counts is the ratio of the medians. If the target says “>=”, the ratio says how many
times better Scribes is. If it says “<=”, the ratio says how many times as long Scribes takes, or how
much there is. The texts are passages of one to twelve consecutive verses of the King James Bible.

A limit is the best ratio that is possible on this machine, measured in the same run. For texts, it
assumes that all the time goes into matrix products of the model's shapes. For searches, it assumes
that PostgreSQL only compares each vector of the user with the query, reading them from the index.

CPU: {cpu}; bfloat16 in hardware: {bf16}.

![How many times better than the target each ratio is; a mark shows a limit below the target](benchmarks.png)
"""


def write_page(folder: Path) -> None:
    results = _read(folder)
    page = PAGE.format(cpu=results["cpu"], bf16=", ".join(results["bf16"]) or "none")
    sections = (_section(name, part) for name, part in results["parts"].items())
    (folder / "benchmarks.md").write_text(page + "".join(sections))
    lines = [Line(**line) for part in results["parts"].values() for line in part["lines"]]
    _plot(lines, folder / "benchmarks.png")


def _section(name: str, part: dict[str, Any]) -> str:
    title = "API" if name == "api" else name.capitalize()
    rows = [HEAD, ("---",) * len(HEAD), *(row(Line(**line)) for line in part["lines"])]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    load = part["load_before"]
    warning = " **The machine was busy with other work.**" if load >= QUIET_LOAD else ""
    measured = f"Measured {part['at']}. Load average before the run: {load}.{warning}"
    return f"\n## {title}\n\n{measured}\n\n{table}\n"


def _plot(lines: list[Line], file: Path) -> None:
    """A bar for each line with a target. 1 is the target, and more is better. A mark shows a limit
    that is below the target."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    # Zero has no logarithm.
    shown = [line for line in lines if line.ratio > 0 and line.target not in ("", "<= 0.00")][::-1]
    figure, axes = pyplot.subplots(figsize=(10, 0.34 * len(shown) + 1), layout="constrained")
    margins = [math.log2(_margin(line)) for line in shown]
    colors = ["tab:blue" if line.is_met else "tab:red" for line in shown]
    axes.barh(range(len(shown)), margins, color=colors)
    limits = {
        n: line._replace(ratio=line.limit) for n, line in enumerate(shown) if _is_out_of_reach(line)
    }
    marks = [math.log2(_margin(limit)) for limit in limits.values()]
    axes.plot(marks, list(limits), "k|", markersize=16, markeredgewidth=2)
    axes.set_yticks(range(len(shown)), [f"{line.title} ({line.target})" for line in shown])
    axes.set_ylim(-1, len(shown))
    axes.axvline(0, color="black", linewidth=1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{2**value:g}x")
    axes.set_xlabel("how many times better than the target")
    figure.savefig(file, dpi=100)
    pyplot.close(figure)


def _margin(line: Line) -> float:
    sign, target = line.target.split()
    return line.ratio / float(target) if sign == ">=" else float(target) / line.ratio
