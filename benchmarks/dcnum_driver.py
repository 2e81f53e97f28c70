"""Runs dcnum on one measurement: ``python dcnum_driver.py '{"path_in": …, "path_out": …, …}'``."""

from __future__ import annotations

import json
import sys

from dcnum.logic import DCNumJobRunner, DCNumPipelineJob  # type: ignore[import-untyped]  # dcnum has no types


def main() -> None:
    """Run the job that the argument describes."""
    job = DCNumPipelineJob(**json.loads(sys.argv[1]))
    with DCNumJobRunner(job=job) as runner:
        runner.run()


if __name__ == "__main__":  # its workers import this module
    main()
