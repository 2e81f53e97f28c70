"""The one way in which numerical kernels are compiled.

Declaring a kernel costs nothing: numba is imported, and the kernel compiled or loaded, when it is called for the first
time. A process that calls none never pays for the half second that numba needs to get ready.

Compiled code is taken from the folder that `dcnumd.kernels.cache` finds complete. Only the processes that fill this
folder write to it; whatever is missing is compiled in memory.
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

# of all kernels: making one real makes those that it calls real, too
_lock = threading.RLock()


class Kernel(Generic[P, R]):
    """A function that numba compiles when it is first called; it may call other kernels, but not itself.

    Parameters
    ----------
    function
        What is compiled.
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
        """The types of arguments for which it is compiled in this process."""
        return [] if self._called == self._first_call else list(self._called.signatures)

    def _first_call(self, *args: Any, **kwargs: Any) -> Any:
        with _lock:
            if self._called == self._first_call:
                compiled = _make_dispatcher(self.function, nogil=True, **self.options)
                folder = open_folder()
                if folder is not None:
                    # not cache=True, see `_Cache`
                    compiled._cache = _Cache(folder, self.function)  # noqa: SLF001 -- there is no public way
                self._called = compiled
        return self._called(*args, **kwargs)

    @property
    def _numba_type_(self) -> Any:
        """Tell numba what this is when it compiles a kernel that calls it."""
        with _lock:
            if self._included is None:
                # a wrapper for callers in Python takes a fifth of the compile time, and kernels do not need it
                self._included = _make_dispatcher(self.function, no_cpython_wrapper=True, **self.options)
            return _numba_type(self._included)


class Intrinsic:
    """A function of kernels that is defined in LLVM's terms.

    Parameters
    ----------
    definition
        As for `numba.extending.intrinsic`.
    """

    def __init__(self, definition: Callable[..., Any]) -> None:
        self.definition = definition
        self._made: Any = None
        functools.update_wrapper(self, definition)

    def __repr__(self) -> str:
        return f"<intrinsic {self.definition.__module__}.{self.definition.__qualname__}>"

    def __call__(self, *args: Any) -> Any:
        """Refuse to be called by Python."""
        raise NotImplementedError(f"{self!r} can only be called by kernels")

    @property
    def _numba_type_(self) -> Any:
        with _lock:
            if self._made is None:
                from numba.extending import intrinsic  # noqa: PLC0415 -- numba is loaded when this is asked for

                self._made = intrinsic(self.definition)
            return _numba_type(self._made)


def _make_dispatcher(function: Callable[..., Any], **options: Any) -> Any:
    """Return what numba compiles at its first call; nobody needs the wrapper for callers in C."""
    import numba  # noqa: PLC0415 -- only who calls a kernel pays for it

    njit: Any = numba.njit
    return njit(error_model="numpy", no_cfunc_wrapper=True, **options)(function)


def _numba_type(value: Any) -> Any:
    """Return numba's type of something that a kernel refers to."""
    from numba.core.registry import cpu_target  # noqa: PLC0415 -- numba is loaded when this is called

    context = cpu_target.typing_context
    # what was declared since compilation began is not known yet
    context.refresh()
    return context.resolve_value_type(value)


class _Cache:
    """Compiled code of one function: what numba loads and saves, in the place of `numba.core.caching.Cache`.

    This needs private names of numba: `_cache`, `_reduce` and `_rebuild`. Its own cache (``cache=True``) was tried in
    the same folder, filled by the same warm-up and checked by the same marker. It is as fast: a fresh process loads all
    kernels in 0.34 s of processor time with numba's, in 0.33 s with this one; compiling them takes 13.1 s and 13.3 s.
    But it breaks what the folder promises (seen with numba 0.68):

    - A user who cannot write to the folder, as a service whose kernels root has compiled, is refused: numba compiles
      to another folder, and raises a RuntimeError if it finds none.
    - A file that is damaged after the folder was checked makes the call fail with EOFError or UnpicklingError, or is
      run with a wrong byte in it. Here the bytes that are loaded are the ones that were checked.
    - A call with other types writes to the complete folder what no marker vouches for, and fails when the disk is full.
      There is no way to have the cache only read.
    - The names of its files contain the path of the package: a second installation finds a complete folder, and yet
      compiles.

    A cache locator would cure the first and the last of these only. If numba renames what is used here, kernels are not
    kept, and each process compiles its own.
    """

    def __init__(self, folder: KernelFolder, function: Callable[..., Any]) -> None:
        self._folder = folder
        self._name = f"{function.__module__}.{function.__qualname__}"
        self.cache_path = str(folder.path)

    def _entry(self, signature: Any, target: Any) -> str:
        """Return the name of the code for a signature on this processor."""
        what = repr((signature, target.codegen().magic_tuple()))
        return f"{self._name}-{hashlib.sha256(what.encode()).hexdigest()[:16]}"

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Return numba's result of compiling for a signature, None if it is not there."""
        from numba.core import compiler  # noqa: PLC0415 -- numba is loaded when it calls this

        result: Any = compiler.CompileResult
        # it must be initialised before code is loaded
        target.refresh()
        content = self._folder.load(self._entry(signature, target))
        if content is None:
            return None
        return result._rebuild(target, *pickle.loads(content))  # noqa: SLF001, S301 -- as numba's; ours

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a result, if this process fills the folder."""
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
    """Have `function` compiled by numba at its first call: without the GIL, cached on disk, IEEE arithmetic kept."""
    return Kernel(function)


def inline_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile like `kernel`, for a small function that belongs inside the loops of its callers."""
    return Kernel(function, forceinline=True)


def llvm_function(definition: Callable[..., Any]) -> Any:
    """Make a function of kernels from a definition in LLVM's terms; Any, as callers leave out the first argument."""
    return cast("Any", Intrinsic(definition))
