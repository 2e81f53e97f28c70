"""What workers have in common, loaded once by the process that they are forked from."""

from __future__ import annotations

import contextlib
import gc

from dcnumd.processes.fork_server import die_with_starter

die_with_starter()
# Nothing of what is loaded is ever garbage: not looking for it is quicker, and leaves the pages of workers shared.
gc.disable()
# Importing this must not fail, or no worker could be made; whatever is wrong shows again in a worker, which can report.
with contextlib.suppress(Exception):
    import dcnumd.logic.tasks  # noqa: F401 -- what workers import
    from dcnumd.logic.warm_up import load_kernels

    load_kernels()
gc.freeze()
gc.enable()
