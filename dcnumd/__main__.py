"""Entry point of the program ``dcnumd`` and of ``python -m dcnumd``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; return the exit code."""
    # Not at the top: worker processes import this module as well, and do not need the command line.
    from dcnumd.cli import main as run_command  # noqa: PLC0415

    return run_command()


if __name__ == "__main__":
    sys.exit(main())
