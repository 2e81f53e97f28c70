"""Networks that `torch.compile` compiles, for each shape of frames once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dcnumd.segm.segm_torch.torch_setup import set_up_compiler

MAX_SHAPES = 8
"""Number of shapes for which a network stays compiled, as many as torch allows; for another one, it fails."""


class CompiledNetwork:
    """A network that is compiled when it gets an input of a new shape.

    Parameters
    ----------
    torch
        The imported package.
    module
        The network: a function of a tensor.
    backend
        Name of a backend of `torch.compile`.
    """

    def __init__(self, torch: Any, module: Callable[[Any], Any], backend: str) -> None:
        set_up_compiler(torch)
        self._torch = torch
        self._module = torch.compile(module, fullgraph=True, dynamic=False, backend=backend)
        self._shapes: set[tuple[int, ...]] = set()

    def __call__(self, batch: Any) -> Any:
        """Return the output for a batch."""
        shape = tuple(batch.shape)
        if shape not in self._shapes and len(self._shapes) == MAX_SHAPES:
            self._torch.compiler.reset()
            self._shapes.clear()
        self._shapes.add(shape)
        return self._module(batch)
