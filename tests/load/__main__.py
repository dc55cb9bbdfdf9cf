"""`make load` measures how much one user's work slows down another user's: docs/reliability.md.

It runs real processes with their default settings: web, worker and beat as in the Procfile. Each case
measures what one person waits for, first alone and then while others are busy.
"""

from __future__ import annotations

import argparse
import os
import sys


def main() -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "scribes.settings"
    import django

    django.setup()
    from tests.load.cases import CASES
    from tests.load.report import run

    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"one of {', '.join(CASES)}")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"there is no case {', '.join(sorted(unknown))}")
    return run([CASES[name] for name in options.cases or CASES])


if __name__ == "__main__":
    sys.exit(main())
