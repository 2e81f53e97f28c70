"""The program ``dcnumd``, and ``python -m dcnumd``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; return the exit code."""
    # worker processes import this module, too, and need nothing of it
    from dcnumd.cli import main as run_command  # noqa: PLC0415

    return run_command()


if __name__ == "__main__":
    sys.exit(main())
