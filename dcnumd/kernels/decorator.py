"""Decorators for numerical kernels; all kernels are compiled through this module.

Declaring a kernel is cheap: numba is imported, and the kernel is compiled or loaded, at the first call. A process that
calls no kernel does not spend the half second that numba needs to get ready.

Compiled code is loaded from the complete folder that `dcnumd.kernels.cache` finds. Only the processes that fill this
folder write to it; other processes compile missing code in memory.
"""

from __future__ import annotations

import functools
import hashlib
import pickle
import threading
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast

from dcnumd.kernels.cache import KernelFolder, open_folder

P = ParamSpec("P")
R = TypeVar("R")

# One reentrant lock for all kernels, since compiling a kernel also compiles those that it calls.
_lock = threading.RLock()


class Kernel(Generic[P, R]):
    """Function that numba compiles at its first call; it may call other kernels, but not itself.

    Parameters
    ----------
    function
        Function to compile.
    options
        Options of `numba.njit`.
    """

    def __init__(self, function: Callable[P, R], **options: Any) -> None:
        self.function = function
        self.options = options
        self._called: Any = self._first_call
        self._included: Any = None
        functools.update_wrapper(self, function)

    def __repr__(self) -> str:
        return f"<kernel {self.function.__module__}.{self.function.__qualname__}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the kernel."""
        return self._called(*args, **kwargs)  # type: ignore[no-any-return]

    @property
    def signatures(self) -> list[Any]:
        """Signatures for which the kernel is compiled in this process."""
        return [] if self._called == self._first_call else list(self._called.signatures)

    def _first_call(self, *args: Any, **kwargs: Any) -> Any:
        with _lock:
            if self._called == self._first_call:
                compiled = _make_dispatcher(self.function, nogil=True, **self.options)
                folder = open_folder()
                if folder is not None:
                    # Why not cache=True? See `_Cache`.
                    compiled._cache = _Cache(folder, self.function)  # noqa: SLF001 -- there is no public way
                self._called = compiled
        return self._called(*args, **kwargs)

    @property
    def _numba_type_(self) -> Any:
        """Type of the kernel in numba, which asks for it when it compiles another kernel that calls this one."""
        with _lock:
            if self._included is None:
                # A wrapper for callers in Python takes a fifth of the compile time, and kernels do not need it.
                self._included = _make_dispatcher(self.function, no_cpython_wrapper=True, **self.options)
            return _numba_type(self._included)


class Intrinsic:
    """Function for kernels that is defined by generating LLVM code.

    Parameters
    ----------
    definition
        Function as for `numba.extending.intrinsic`.
    """

    def __init__(self, definition: Callable[..., Any]) -> None:
        self.definition = definition
        self._made: Any = None
        functools.update_wrapper(self, definition)

    def __repr__(self) -> str:
        return f"<intrinsic {self.definition.__module__}.{self.definition.__qualname__}>"

    def __call__(self, *args: Any) -> Any:
        """Raise NotImplementedError, since only kernels can call it."""
        raise NotImplementedError(f"{self!r} can only be called by kernels")

    @property
    def _numba_type_(self) -> Any:
        with _lock:
            if self._made is None:
                from numba.extending import intrinsic  # noqa: PLC0415 -- numba is imported on demand

                self._made = intrinsic(self.definition)
            return _numba_type(self._made)


def _make_dispatcher(function: Callable[..., Any], **options: Any) -> Any:
    """Return a function that numba compiles at its first call, without the wrapper for callers in C."""
    import numba  # noqa: PLC0415 -- numba is imported on demand

    njit: Any = numba.njit
    return njit(error_model="numpy", no_cfunc_wrapper=True, **options)(function)


def _numba_type(value: Any) -> Any:
    """Return the type in numba of a value that a kernel refers to."""
    from numba.core.registry import cpu_target  # noqa: PLC0415 -- numba is imported on demand

    context = cpu_target.typing_context
    # Without this, numba does not know what was declared since the compilation began.
    context.refresh()
    return context.resolve_value_type(value)


class _Cache:
    """Cache of the compiled code of one function, used by numba in place of `numba.core.caching.Cache`.

    It relies on private names of numba: `_cache`, `_reduce` and `_rebuild`. If numba renames them, kernels are not
    stored, and each process compiles its own.

    Why not numba's own cache (``cache=True``)? It was tried in the same folder, with the same warm-up and marker. It is
    as fast: a new process loads all kernels in 0.34 s of processor time with numba's cache and in 0.33 s with this one;
    compiling them takes 13.1 s and 13.3 s. But it breaks the guarantees of the folder (numba 0.68):

    - If the user cannot write to the folder, for example a service whose kernels root has compiled, numba compiles to
      another folder, and raises a RuntimeError if it finds none.
    - If a file is damaged after the folder was checked, the call fails with EOFError or UnpicklingError, or code with a
      wrong byte is run. Here the loaded bytes are those that were checked.
    - A call with other types writes a file to the complete folder that its marker does not cover, and fails if the disk
      is full. There is no way to make the cache read-only.
    - File names contain the path of the package, so a second installation compiles although the folder is complete.

    A cache locator would solve only the first and the last of these problems.
    """

    def __init__(self, folder: KernelFolder, function: Callable[..., Any]) -> None:
        self._folder = folder
        self._name = f"{function.__module__}.{function.__qualname__}"
        self.cache_path = str(folder.path)

    def _entry(self, signature: Any, target: Any) -> str:
        """Return the name of the compiled code for a signature on this processor."""
        what = repr((signature, target.codegen().magic_tuple()))
        return f"{self._name}-{hashlib.sha256(what.encode()).hexdigest()[:16]}"

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Return numba's compilation result for a signature; None if it is not in the folder."""
        from numba.core import compiler  # noqa: PLC0415 -- numba is loaded when it calls this

        result: Any = compiler.CompileResult
        # The target must be initialised before code is loaded.
        target.refresh()
        content = self._folder.load(self._entry(signature, target))
        if content is None:
            return None
        return result._rebuild(target, *pickle.loads(content))  # noqa: SLF001, S301 -- as in numba; own file

    def save_overload(self, signature: Any, result: Any) -> None:
        """Store a compilation result if this process fills the folder."""
        if self._folder.filling:
            from numba.core import serialize  # noqa: PLC0415 -- numba is loaded when it calls this

            dumps: Any = serialize.dumps
            entry = self._entry(signature, result.target_context)
            self._folder.save(entry, dumps(result._reduce()))  # noqa: SLF001 -- as numba's own cache does

    def enable(self) -> None:
        """Do nothing; numba expects it."""

    def disable(self) -> None:
        """Do nothing; numba expects it."""

    def flush(self) -> None:
        """Do nothing; numba expects it."""


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Return a kernel that numba compiles at its first call: without the GIL, cached on disk, with IEEE arithmetic."""
    return Kernel(function)


def inline_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Return a kernel like `kernel`, for a small function that is to be inlined into the loops of its callers."""
    return Kernel(function, forceinline=True)


def llvm_function(definition: Callable[..., Any]) -> Any:
    """Return an `Intrinsic`; its type here is Any, since kernels call it without the first argument of `definition`."""
    return cast("Any", Intrinsic(definition))
