"""Opening a file in SWMR mode for reading: "single writer, multiple readers"."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib

import h5py

READ_ATTEMPTS = 20
"""Number of attempts to read metadata whose checksum is wrong, for example because they are just being written.

HDF5 doubles its pause after each attempt. It makes 100 by default, so that it would never return from damaged ones;
20 of them take about 1 ms."""


def open_swmr(path: str | pathlib.Path, *, keep_chunks: bool = True) -> h5py.File:
    """Open a file that is marked as open for writing in SWMR mode, for reading and without a lock.

    Parameters
    ----------
    path
        The file.
    keep_chunks
        As for `dcnumd.read.open_file.open_measurement`.

    Raises
    ------
    Exception
        One of `dcnumd.read.open_file.HDF5_FAULTS`.
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
    access.set_file_locking(False, True)
    if not keep_chunks:
        metadata_items, slots, _, preemption = access.get_cache()
        access.set_cache(metadata_items, slots, 0, preemption)
    # h5py does not offer this function of HDF5, but its modules are linked with it
    with contextlib.suppress(AttributeError):
        limit = ctypes.CDLL(h5py.h5.__file__).H5Pset_metadata_read_attempts
        limit.argtypes = [ctypes.c_int64, ctypes.c_uint]
        limit(access.id, READ_ATTEMPTS)
    return h5py.File(h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY | h5py.h5f.ACC_SWMR_READ, access))
