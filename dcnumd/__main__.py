"""``python -m dcnumd``."""

from __future__ import annotations

import sys

from dcnumd.cli import main

if __name__ == "__main__":
    sys.exit(main())
