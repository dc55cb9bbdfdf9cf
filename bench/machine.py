"""The machine of this run."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cpu() -> str:
    """The CPU's name, with its family and model, because virtual machines may hide the name."""
    facts = _facts()
    name = facts.get("model name", platform.processor() or platform.machine())
    if "cpu family" in facts:
        name += f" (family {facts['cpu family']}, model {facts['model']})"
    return f"{name}, {os.cpu_count()} cores"


def has_bf16() -> bool:
    """Whether the CPU multiplies matrices of bfloat16."""
    return bool({"avx512_bf16", "amx_bf16"} & bf16_features())


def bf16_features() -> set[str]:
    return {flag for flag in _facts().get("flags", "").split() if flag.endswith("_bf16")}


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def _facts() -> dict[str, str]:
    """What Linux says about the first processor; empty on other systems."""
    file = Path("/proc/cpuinfo")
    first = file.read_text().split("\n\n")[0] if file.exists() else ""
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
