"""`make bench`: everything side by side with its peers, in one table. See docs/benchmarks.md."""

from __future__ import annotations

import os
import sys


def main() -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "bench.settings"
    import django

    django.setup()
    from bench.parts import measure

    return measure(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
