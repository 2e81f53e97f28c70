"""Kernels are compiled when they are called, and not before."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np

from dcnumd.kernels.decorator import inline_kernel, kernel, llvm_function


@llvm_function
def negative(_typing_context, number):
    """Return the negative of a number."""
    import numba  # noqa: PLC0415

    def generate(_context, builder, _signature, arguments):
        return builder.neg(arguments[0])

    return numba.int64(numba.int64), generate


@inline_kernel
def doubled(number: int) -> int:
    """Return twice the number."""
    return 2 * number


@kernel
def doubled_sum(numbers, start=0):
    """Return twice the sum."""
    total = start
    for i in range(numbers.size):
        total += doubled(numbers[i])
    return total


@kernel
def minus(number):
    """Return the negative by way of LLVM."""
    return negative(number)


@kernel
def quotient(dividend, divisor):
    """Divide as IEEE says."""
    return dividend / divisor


def run(code):
    """Run code in a new process and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_pipeline_imports_no_compiler():
    """The process that leads the workers imports all kernels and neither numba nor llvmlite."""
    code = "import sys, dcnumd.logic.process, dcnumd.logic.tasks, dcnumd.logic.warm_up as warm_up\n"
    code += "print(*sorted({'numba', 'llvmlite', 'scipy'} & set(sys.modules)))"
    assert run(code) == []


def test_kernel_calls_kernels():
    """A kernel that calls another, or a function in LLVM's terms gives what Python gives."""
    assert doubled_sum(np.arange(5)) == 20
    assert doubled_sum(np.arange(5), start=1) == 21
    assert doubled_sum(np.array([0.25])) == 0.5
    assert minus(7) == -7


def test_arithmetic_is_that_of_ieee():
    """Division by zero gives an infinity, not an exception."""
    assert quotient(1.0, 0.0) == np.inf
    assert np.isnan(quotient(0.0, 0.0))


def test_kernel_tells_what_it_is():
    """Name, documentation and text are those of the function."""
    assert doubled_sum.__name__ == "doubled_sum"
    assert doubled_sum.__doc__ == "Return twice the sum."
    assert repr(doubled_sum) == f"<kernel {__name__}.doubled_sum>"
    assert repr(negative) == f"<intrinsic {__name__}.negative>"


def test_signatures_are_those_called():
    """What was compiled can be asked for."""

    @kernel
    def unused(number):
        return number

    assert unused.signatures == []
    unused(1)
    unused(2)
    assert len(unused.signatures) == 1


def test_first_call_by_many_threads():
    """Several threads may be the first to call a kernel, and the ones that it calls."""

    @kernel
    def inner(number):
        return number + 1

    @kernel
    def outer(number):
        return 2 * inner(number)

    results, start = [], threading.Barrier(6)

    def work(number):
        start.wait()
        results.append((number, outer(number) if number % 2 else inner(number)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [(0, 1), (1, 4), (2, 3), (3, 8), (4, 5), (5, 12)]
    assert len(outer.signatures) == 1
