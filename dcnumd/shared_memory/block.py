"""Memory, locks, events and numbers that threads and processes share, and that none of them leaves behind.

Whatever is shared lives in descriptors: the kernel takes it back when the last process ends that has it, however that
ends, and nothing waits for a process that was killed. This is what `multiprocessing` does not give: its locks stay
locked when the holder is killed, and its semaphores have names. Other processes of the same user find the descriptors
by way of the process that made them.
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
    """What another process of the same user needs to map a block."""

    pid: int
    descriptor: int
    serial: int
    """Tells blocks apart that had the same descriptor, one after the other."""
    size: int


class Descriptor:
    """An open file that is closed when nobody needs it any more.

    Parameters
    ----------
    number
        The file descriptor.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    @classmethod
    def of_process(cls, pid: int, number: int, flags: int = 0) -> Descriptor:
        """Open anew, for reading and writing, what a process of this user has open."""
        return cls(os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC | flags))

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._number

    def __del__(self) -> None:
        os.close(self._number)


_serials = itertools.count()
_attached: weakref.WeakValueDictionary[tuple[int, int, int], SharedBlock] = weakref.WeakValueDictionary()


class SharedBlock:
    """Memory that several processes share, named by the process that made it.

    A running process attaches to a block that was made after it started, and a block can grow in place.
    The memory belongs to the processes that map it: when the last of them ends, however it ends, the kernel
    takes it back, so that nothing is ever left behind (which names in /dev/shm would not give).

    Parameters
    ----------
    size
        Number of bytes; pages take memory only once they are written to.
    descriptor
        An open block to map; None makes a new one.
    """

    def __init__(self, size: int, descriptor: Descriptor | None = None) -> None:
        if descriptor is None:
            descriptor = Descriptor(os.memfd_create("dcnumd-slot", os.MFD_CLOEXEC))
            os.ftruncate(descriptor.fileno(), size)
        self._descriptor = descriptor
        self._serial = next(_serials)
        self.lock = SharedLock(descriptor)
        """Between all that map this block."""
        self._map(size)

    def _map(self, size: int) -> None:
        self.size = size
        self._memory = mmap.mmap(self.descriptor, size)

    @property
    def handle(self) -> BlockHandle:
        """The block's name for `attach`, valid while this process lives."""
        return BlockHandle(os.getpid(), self.descriptor, self._serial, self.size)

    @property
    def descriptor(self) -> int:
        """File descriptor of the block in this process."""
        return self._descriptor.fileno()

    @classmethod
    def attach(cls, handle: BlockHandle) -> SharedBlock:
        """Map a block that another process, or this one, has made; one that is mapped already is used again.

        Raises
        ------
        WorkerError
            If its maker has ended, or let go of it.
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
            # mapping pages anew is expensive, hence only when the block has grown
            block._map(handle.size)
        return block

    def grow(self, size: int) -> None:
        """Make the block at least `size` bytes large; arrays made before stay valid."""
        if size > self.size:
            os.ftruncate(self.descriptor, size)
            self._map(size)

    def trim(self, size: int) -> None:
        """Give the pages behind the first `size` bytes back to the system; the block stays as large as it is."""
        if size < self.size:
            os.ftruncate(self.descriptor, size)
            os.ftruncate(self.descriptor, self.size)

    def array(self, offset: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return a view on the block's memory."""
        return np.ndarray(shape, dtype, buffer=self._memory, offset=offset)

    def __reduce__(self) -> tuple[object, ...]:
        return SharedBlock.attach, (self.handle,)


class SharedLock:
    """Lock between threads and processes that the kernel frees when its holder is killed.

    The thread that holds it can take it again, and must release it as many times.

    Parameters
    ----------
    descriptor
        An open file; whoever opens the same one has the same lock. In this process there is one lock for each opening.
    """

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._threads = threading.Lock()
        self._owner: int | None = None
        self._depth = 0

    def acquire(self, block: bool = True) -> bool:
        """Take the lock and return whether that was possible; wait for it unless `block` is false."""
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
        """Give the lock back.

        Raises
        ------
        RuntimeError
            This thread does not hold it.
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
    """A whole number that threads and processes share, with the methods of `multiprocessing.Value`.

    Parameters
    ----------
    block
        The memory that holds it; None for a new one, which holds 0.
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
        """The number; to change it by what it is, hold the lock."""
        return int(self._array[0])

    @value.setter
    def value(self, value: int) -> None:
        self._array[0] = value

    def get_lock(self) -> SharedLock:
        """Return the lock of this number, which entering the number takes, too."""
        return self._block.lock

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class SharedEvent:
    """An event that threads and processes share, with the methods of `multiprocessing.Event`.

    It is a pipe in which something lies while the event is set, so that it can be waited for together with other
    descriptors.

    Parameters
    ----------
    descriptor
        The pipe; None for a new one, and an event that is not set.
    """

    def __init__(self, descriptor: Descriptor | None = None) -> None:
        if descriptor is None:
            ends = [Descriptor(number) for number in os.pipe()]
            descriptor = Descriptor.of_process(os.getpid(), ends[0].fileno(), os.O_NONBLOCK)
        self._descriptor = descriptor

    @classmethod
    def attach(cls, pid: int, descriptor: int) -> SharedEvent:
        """Return the event that has a descriptor in a process, which must be alive."""
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
        """Set the event and wake all that wait for it."""
        if not self.is_set():
            os.write(self.fileno(), b"1")

    def clear(self) -> None:
        """Reset the event."""
        with contextlib.suppress(BlockingIOError):
            # several that set it at the same moment may have left one byte each
            os.read(self.fileno(), select.PIPE_BUF)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set.

        Parameters
        ----------
        timeout
            Time after which to give up [s]; None for never.

        Returns
        -------
        is_set
            False if the time was up.
        """
        waiting = select.poll()
        waiting.register(self.fileno(), select.POLLIN)
        return bool(waiting.poll(None if timeout is None else math.ceil(1000 * max(0.0, timeout))))
