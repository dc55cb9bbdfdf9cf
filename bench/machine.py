"""What this run was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cpu() -> str:
    """Its name, or its family and model where a virtual machine hides that."""
    facts = _facts()
    name = facts.get("model name", platform.processor() or platform.machine())
    if "cpu family" in facts:
        name += f" (family {facts['cpu family']}, model {facts['model']})"
    return f"{name}, {os.cpu_count()} cores"


def has_bf16() -> bool:
    """Whether the processor multiplies matrices of bfloat16."""
    return bool({"avx512_bf16", "amx_bf16"} & bf16())


def bf16() -> set[str]:
    return {flag for flag in _facts().get("flags", "").split() if flag.endswith("_bf16")}


def load() -> float:
    """Processes that wanted a core, on average over the last minute."""
    return os.getloadavg()[0]


def _facts() -> dict[str, str]:
    """Of the first processor; empty where the system is not Linux."""
    file = Path("/proc/cpuinfo")
    first = file.read_text().split("\n\n")[0] if file.exists() else ""
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
