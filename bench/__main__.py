"""`make bench` measures Scribes side by side with its peers: see docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main() -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "bench.settings"
    import django

    django.setup()
    from bench.parts import PARTS, measure

    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path(__file__).parent.parent / "docs",
        metavar="FOLDER",
        help="folder for benchmarks.json, .md and .png (default: docs)",
    )
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    return measure(options.parts or PARTS, options.results)


if __name__ == "__main__":
    sys.exit(main())
