"""The table of all parts: printed while it grows, kept as JSON, shown as docs/benchmarks.md.

Each part has its own time and load, since its ratios were measured in one run; measuring one part
again replaces its lines only.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from django.conf import settings

from bench import machine
from bench.measure import Line

DOCS = settings.BASE_DIR / "docs"
FILE = DOCS / "benchmarks.json"
# Processes that want a core, on average over a minute: below this, a run has the machine to itself.
QUIET = 0.7
HEAD = ("what", "ours", "against", "peer", "ratio", "target", "met")


def show(line: Line) -> Line:
    print(" | ".join(row(line)), flush=True)
    return line


def row(line: Line) -> list[str]:
    met = verdict(line) if line.target else ""
    ratio = f"{line.ratio:.4g}" if line.peer else ""
    return [line.what, line.ours, line.against, line.peer, ratio, line.target, met]


def verdict(line: Line) -> str:
    if line.met:
        return "yes"
    return f"no: the limit here is {line.limit:.3g}" if _out_of_reach(line) else "**no**"


def _out_of_reach(line: Line) -> bool:
    return not line.met and 0 < line.limit < float(line.target.split()[1])


def keep(part: str, lines: list[Line], load: float) -> None:
    """What was measured on another machine is dropped."""
    kept = read()
    if kept["cpu"] != machine.cpu():
        kept = empty()
    kept["parts"].pop(part, None)  # the last measured comes last
    kept["parts"][part] = {
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "load_before": round(load, 2),
        "lines": [line._asdict() for line in lines],
    }
    DOCS.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def read() -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else empty()
    return kept


def empty() -> dict[str, Any]:
    return {"cpu": machine.cpu(), "bf16": sorted(machine.bf16()), "parts": {}}


# --- docs/benchmarks.md ---------------------------------------------------------------------

PAGE = """# Benchmarks

`make bench` measures Scribes side by side with its peers and writes this page; `make bench
PARTS="encode search"` measures some parts again. Both sides are timed in turn in one run, since
absolute times do not hold on a shared machine: what counts is the ratio of the medians. Where the
target says “>=”, the ratio says how many times better ours is; where it says “<=”, how many times as
long ours takes, or how much there is. The texts are one to twelve neighbouring verses each of the
King James Bible. A limit is the best ratio that was possible, measured in the same run: for texts, if
all the time went into matrix products of the model's shapes; for searches, if PostgreSQL compared each
vector of the user with the query, from the index, and did nothing else.

CPU: {cpu}; bfloat16 in hardware: {bf16}.

![How many times better than the target asks; a mark is the limit, where that is less](benchmarks.png)
"""


def write() -> None:
    kept = read()
    page = PAGE.format(cpu=kept["cpu"], bf16=", ".join(kept["bf16"]) or "none")
    parts = (_section(name, part) for name, part in kept["parts"].items())
    (DOCS / "benchmarks.md").write_text(page + "".join(parts))
    plot([Line(**line) for part in kept["parts"].values() for line in part["lines"]])


def _section(name: str, part: dict[str, Any]) -> str:
    lines = [HEAD, ("---",) * len(HEAD), *(row(Line(**line)) for line in part["lines"])]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    load = part["load_before"]
    busy = " **Other work had kept the cores busy in the minute before.**" if load >= QUIET else ""
    when = f"Measured {part['at']}; load before the run: {load}.{busy}"
    return f"\n## {name.capitalize()}\n\n{when}\n\n{table}\n"


def plot(lines: list[Line]) -> None:
    """A bar for each line with a target; 1 is the target, and right of it is better. A limit that is
    left of it is marked."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    # How far from nothing has no logarithm.
    aimed = [line for line in lines if line.ratio > 0 and line.target not in ("", "<= 0.00")][::-1]
    figure, axes = pyplot.subplots(figsize=(10, 0.34 * len(aimed) + 1), layout="constrained")
    margins = [_margin(line) for line in aimed]
    colors = ["tab:blue" if line.met else "tab:red" for line in aimed]
    axes.barh(range(len(aimed)), [math.log2(margin) for margin in margins], color=colors)
    limits = {
        n: line._replace(ratio=line.limit) for n, line in enumerate(aimed) if _out_of_reach(line)
    }
    marks = [math.log2(_margin(limit)) for limit in limits.values()]
    axes.plot(marks, list(limits), "k|", markersize=16, markeredgewidth=2)
    axes.set_yticks(range(len(aimed)), [f"{line.what} ({line.target})" for line in aimed])
    axes.set_ylim(-1, len(aimed))
    axes.axvline(0, color="black", linewidth=1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{2**value:g}x")
    axes.set_xlabel("how many times better than the target asks")
    figure.savefig(DOCS / "benchmarks.png", dpi=100)
    pyplot.close(figure)


def _margin(line: Line) -> float:
    sign, target = line.target.split()
    return line.ratio / float(target) if sign == ">=" else float(target) / line.ratio
