"""Files of /proc that are read again and again, kept open: a look at 16 threads is a tenth cheaper so.

A handle is of the thread that it was opened for, and fails once that ended; who is given its number is opened anew. It
must not hold more files than it was allowed: they are the daemon's own.
"""

from __future__ import annotations

import posix

from sentinel.proc import RECORD_BYTES, read_record


class Kept:
    """At most so many files; the others are opened each time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._handles: dict[str, int] = {}
        self._used: set[str] = set()

    def read(self, path: str) -> bytes:
        """A file that procfs gives in one piece. Raises OSError."""
        handle = self._handles.get(path)
        if handle is None:
            if len(self._handles) >= self._most:
                return read_record(path)
            handle = self._handles[path] = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        self._used.add(path)
        try:
            return posix.pread(handle, RECORD_BYTES, 0)
        except OSError:
            self._drop(path)
            raise

    def sweep(self) -> None:
        """Closes what was not read since the sweep before."""
        for path in self._handles.keys() - self._used:
            self._drop(path)
        self._used.clear()

    def close(self) -> None:
        self._used.clear()
        self.sweep()

    def _drop(self, path: str) -> None:
        posix.close(self._handles.pop(path))
