"""Modules that workers share, loaded once by the process that forks them."""

from __future__ import annotations

import contextlib
import gc

from dcnumd.processes.fork_server import die_with_starter

die_with_starter()
# The loaded objects never become garbage. Without collection, loading is faster and workers share their memory pages.
gc.disable()
# An error here would prevent starting workers. It occurs again in a worker, which can report it.
with contextlib.suppress(Exception):
    import dcnumd.logic.tasks  # noqa: F401 -- imported for the workers
    from dcnumd.logic.warm_up import load_kernels

    load_kernels()
gc.freeze()
gc.enable()
