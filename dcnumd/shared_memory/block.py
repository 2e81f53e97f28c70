"""Memory, locks, events and numbers that threads and processes share, and that do not outlive these processes.

All of them are file descriptors: the kernel frees them when the last process that has them open ends, however it ends,
and no process waits for one that was killed. Why not `multiprocessing`? Its locks stay locked if the holder is killed,
and its semaphores have names. Other processes of the same user open the descriptors by means of the process that
created them, in ``/proc``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import math
import mmap
import os
import select
import threading
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.errors import WorkerError


@dataclasses.dataclass(frozen=True, slots=True)
class BlockHandle:
    """Data that another process of the same user needs to map a block."""

    pid: int
    descriptor: int
    serial: int
    """Number that distinguishes blocks that had the same descriptor one after the other."""
    size: int


class Descriptor:
    """File descriptor that is closed when the last reference to this object is gone.

    Parameters
    ----------
    number
        The file descriptor.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    @classmethod
    def of_process(cls, pid: int, number: int, flags: int = 0) -> Descriptor:
        """Open again, for reading and writing, a file that a process of this user has open."""
        return cls(os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC | flags))

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._number

    def __del__(self) -> None:
        os.close(self._number)


_serials = itertools.count()
_attached: weakref.WeakValueDictionary[tuple[int, int, int], SharedBlock] = weakref.WeakValueDictionary()


class SharedBlock:
    """Memory shared by several processes, and identified by the process that created it.

    A running process can map a block that was created after its start, and a block can grow in place. The kernel frees
    the memory when the last process that maps it ends, however it ends. Why not names in /dev/shm? They could be left
    behind.

    Parameters
    ----------
    size
        Size of the block [bytes]; pages take memory only once they are written to.
    descriptor
        Descriptor of an existing block; None creates a new block.
    """

    def __init__(self, size: int, descriptor: Descriptor | None = None) -> None:
        if descriptor is None:
            descriptor = Descriptor(os.memfd_create("dcnumd-slot", os.MFD_CLOEXEC))
            os.ftruncate(descriptor.fileno(), size)
        self._descriptor = descriptor
        self._serial = next(_serials)
        self.lock = SharedLock(descriptor)
        """Lock shared by all processes that map this block."""
        self._map(size)

    def _map(self, size: int) -> None:
        self.size = size
        self._memory = mmap.mmap(self.descriptor, size)

    @property
    def handle(self) -> BlockHandle:
        """Handle of the block for `attach`; valid while this process lives."""
        return BlockHandle(os.getpid(), self.descriptor, self._serial, self.size)

    @property
    def descriptor(self) -> int:
        """File descriptor of the block in this process."""
        return self._descriptor.fileno()

    @classmethod
    def attach(cls, handle: BlockHandle) -> SharedBlock:
        """Return a block that this or another process has created; map it unless it is mapped already.

        Raises
        ------
        WorkerError
            If the process that created it has ended, or has closed it.
        """
        key = (handle.pid, handle.descriptor, handle.serial)
        block = _attached.get(key)
        if block is None:
            try:
                block = cls(handle.size, Descriptor.of_process(handle.pid, handle.descriptor))
            except (FileNotFoundError, ProcessLookupError) as error:
                message = f"process {handle.pid} does not share block {handle.serial} any more"
                raise WorkerError(message, "worker", transient=True) from error
            _attached[key] = block
        elif handle.size > block.size:
            # Mapping pages again is expensive, and is done only if the block has grown.
            block._map(handle.size)
        return block

    def grow(self, size: int) -> None:
        """Make the block at least `size` bytes large; existing arrays stay valid."""
        if size > self.size:
            os.ftruncate(self.descriptor, size)
            self._map(size)

    def trim(self, size: int) -> None:
        """Free the memory after the first `size` bytes; the size of the block does not change."""
        if size < self.size:
            os.ftruncate(self.descriptor, size)
            os.ftruncate(self.descriptor, self.size)

    def array(self, offset: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an array in the block's memory that begins at `offset` [bytes]."""
        return np.ndarray(shape, dtype, buffer=self._memory, offset=offset)

    def __reduce__(self) -> tuple[object, ...]:
        return SharedBlock.attach, (self.handle,)


class SharedLock:
    """Reentrant lock between threads and processes, which the kernel releases if its holder is killed.

    The thread that holds it can acquire it again, and must release it as many times.

    Parameters
    ----------
    descriptor
        An open file; processes that open the same file have the same lock. In a process, each opening has one lock.
    """

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._threads = threading.Lock()
        self._owner: int | None = None
        self._depth = 0

    def acquire(self, block: bool = True) -> bool:
        """Acquire the lock, and return whether that was possible; wait for it unless `block` is false."""
        thread = threading.get_ident()
        if self._owner != thread:
            if not self._threads.acquire(block):
                return False
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX if block else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._threads.release()
                return False
            except BaseException:
                self._threads.release()
                raise
            self._owner = thread
        self._depth += 1
        return True

    def release(self) -> None:
        """Release the lock.

        Raises
        ------
        RuntimeError
            If this thread does not hold it.
        """
        if self._owner != threading.get_ident():
            raise RuntimeError("a lock can be released only by the thread that holds it")
        self._depth -= 1
        if not self._depth:
            self._owner = None
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._threads.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class SharedNumber:
    """Integer shared by threads and processes, with the methods of `multiprocessing.Value`.

    Parameters
    ----------
    block
        Memory of the number; None creates a new number, which is 0.
    """

    def __init__(self, block: SharedBlock | None = None) -> None:
        self._block = SharedBlock(8) if block is None else block
        self._array = self._block.array(0, (1,), np.int64)
        self.acquire = self._block.lock.acquire
        self.release = self._block.lock.release

    def __reduce__(self) -> tuple[object, ...]:
        return SharedNumber, (self._block,)

    @property
    def value(self) -> int:
        """The number; hold the lock for a change that depends on its present value."""
        return int(self._array[0])

    @value.setter
    def value(self, value: int) -> None:
        self._array[0] = value

    def get_lock(self) -> SharedLock:
        """Return the lock of this number, which is also held in a ``with`` block of the number."""
        return self._block.lock

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class SharedEvent:
    """Event shared by threads and processes, with the methods of `multiprocessing.Event`.

    It is a pipe that contains data while the event is set, so that it can be waited for together with other
    descriptors.

    Parameters
    ----------
    descriptor
        Descriptor of the pipe; None creates a new event, which is not set.
    """

    def __init__(self, descriptor: Descriptor | None = None) -> None:
        if descriptor is None:
            ends = [Descriptor(number) for number in os.pipe()]
            descriptor = Descriptor.of_process(os.getpid(), ends[0].fileno(), os.O_NONBLOCK)
        self._descriptor = descriptor

    @classmethod
    def attach(cls, pid: int, descriptor: int) -> SharedEvent:
        """Return the event with this descriptor in a process, which must be alive."""
        return cls(Descriptor.of_process(pid, descriptor, os.O_NONBLOCK))

    def __reduce__(self) -> tuple[object, ...]:
        return SharedEvent.attach, (os.getpid(), self.fileno())

    def fileno(self) -> int:
        """Return a descriptor that is readable while the event is set."""
        return self._descriptor.fileno()

    def is_set(self) -> bool:
        """Return whether the event is set."""
        return self.wait(0)

    def set(self) -> None:
        """Set the event, and wake all threads and processes that wait for it."""
        if not self.is_set():
            os.write(self.fileno(), b"1")

    def clear(self) -> None:
        """Reset the event."""
        with contextlib.suppress(BlockingIOError):
            # Threads or processes that set the event at the same moment may have written one byte each.
            os.read(self.fileno(), select.PIPE_BUF)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set.

        Parameters
        ----------
        timeout
            Longest time to wait [s]; None means no limit.

        Returns
        -------
        is_set
            Whether the event is set; False after a timeout.
        """
        waiting = select.poll()
        waiting.register(self.fileno(), select.POLLIN)
        return bool(waiting.poll(None if timeout is None else math.ceil(1000 * max(0.0, timeout))))
