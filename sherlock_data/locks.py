"""One build of a store at a time: the second is told who holds it.

On a file system the lock is ``<store>.zarr.lock``: created exclusively (POSIX ``O_EXCL``, which NFS
honours too), held by ``flock`` for as long as its process lives, and touched now and then, so that
another host, where ``flock`` may not reach, sees that its holder is alive. On an object store it is
an object put only if there is none (``If-None-Match: *``), rewritten now and then.

A lock whose holder has died is taken over. Limits: without ``flock`` between hosts, and on object
stores, death shows only by :data:`STALE_S` seconds of silence, and two that take over one dead lock
in the same instant are not kept apart.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import psutil

from sherlock_data.errors import SherlockError, StoreError
from sherlock_data.remote import file_system, is_remote, plainly

SUFFIX = ".lock"
#: a holder shows this often that it is alive
HEARTBEAT_S = 10.0
#: silence after which a holder elsewhere is taken for dead
STALE_S = 120.0
#: who waits for a holder looks this often
WAIT_S = 1.0
#: a lock file is empty for no longer than this
EMPTY_S = 5.0


@dataclass(frozen=True)
class Holder:
    """Who builds a store.

    Attributes
    ----------
    host : str
    pid : int
    since : str
        ISO 8601, UTC.
    beat : float
        Seconds since the epoch by its own clock when it was last heard of (object stores).
    """

    host: str
    pid: int
    since: str
    beat: float

    @classmethod
    def me(cls) -> Holder:
        """Describe this process."""
        now = datetime.now(UTC)
        return cls(
            socket.gethostname(), os.getpid(), now.isoformat(timespec="seconds"), now.timestamp()
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    @property
    def is_dead_here(self) -> bool:
        """Whether it ran on this host and is gone, or its number now belongs to a later one."""
        if self.host != socket.gethostname():
            return False
        try:
            started = psutil.Process(self.pid).create_time()
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False
        # a second for clocks that are rounded
        return bool(started > datetime.fromisoformat(self.since).timestamp() + 1)


@contextlib.contextmanager
def held(
    path: str | Path, doing: str = "is being built", wait_s: float = 0.0
) -> Iterator[Holder | None]:
    """Hold the lock of a store, or of anything else that one process at a time may write.

    Parameters
    ----------
    path : path or URL
        The store.
    doing : str
        What a second one is told of the first.
    wait_s : float
        How long to wait for another holder to end, or to have been silent long enough.

    Yields
    ------
    Holder or None
        The dead one whose lock was taken over.

    Raises
    ------
    StoreError
        If another build holds it.
    """
    text = f"{path}{SUFFIX}"
    lock: _FileLock | _ObjectLock
    with plainly(path):
        lock = _ObjectLock(text, doing) if is_remote(text) else _FileLock(Path(text), doing)
        dead = _acquired(lock, wait_s)
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(lock, stop), daemon=True, name="lock")
    beating.start()
    try:
        yield dead
    finally:
        stop.set()
        beating.join()
        lock.release()


def _acquired(lock: _FileLock | _ObjectLock, wait_s: float) -> Holder | None:
    until = time.monotonic() + wait_s
    while True:
        try:
            return lock.acquire()
        except StoreError:
            if time.monotonic() >= until:
                raise
            time.sleep(WAIT_S)


def exists(path: str | Path) -> bool:
    """Whether a local store has a lock, alive or dead; one in an object store is not looked for."""
    return not is_remote(path) and Path(f"{path}{SUFFIX}").exists()


def _beat(lock: _FileLock | _ObjectLock, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        # the next one may get through
        with contextlib.suppress(OSError, StoreError), plainly(lock.where):
            lock.beat()


def _busy(path: object, holder: Holder | None, doing: str) -> StoreError:
    who = f"by {holder}" if holder else "by another process, just started"
    store = str(path).removesuffix(SUFFIX)
    return StoreError(f"{doing} {who}", where=store, remedy="wait for it, or stop it first")


def _parse(data: bytes) -> Holder | None:
    try:
        found: dict[str, Any] = json.loads(data)
        return Holder(**found)
    except (ValueError, TypeError):
        return None


def _encode(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


class _FileLock:
    """A lock file, of which this process holds the open descriptor."""

    def __init__(self, path: Path, doing: str) -> None:
        self.path, self.where, self.doing = path, str(path), doing
        self.descriptor = -1

    def acquire(self) -> Holder | None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
                self.descriptor = os.open(self.path, flags, 0o644)
                created = True
            except FileExistsError:
                try:
                    self.descriptor = os.open(self.path, os.O_RDWR)
                except FileNotFoundError:  # just released
                    continue
                created = False
            try:
                if self._own(created):
                    break
            except BaseException:
                os.close(self.descriptor)
                raise
            os.close(self.descriptor)
        dead = None if created else _parse(self._read())
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, _encode(Holder.me()), 0)
        return dead

    def _own(self, created: bool) -> bool:
        """Take the open file for this process; False where it was removed meanwhile."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locks_work = True
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise _busy(self.path, _parse(self._read()), self.doing) from None
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                raise
            locks_work = False
        try:
            if not os.path.samestat(os.fstat(self.descriptor), self.path.stat()):
                return False
        except FileNotFoundError:
            return False
        if not created:
            self._refuse_the_living(locks_work)
        return True

    def _refuse_the_living(self, locks_work: bool) -> None:
        holder = _parse(self._read())
        if holder is None:
            alive = not locks_work and self._silence_s() < EMPTY_S
        elif holder.host == socket.gethostname():
            alive = not locks_work and not holder.is_dead_here
        else:
            alive = self._silence_s() < STALE_S
        if alive:
            raise _busy(self.path, holder, self.doing)

    def _read(self) -> bytes:
        return os.pread(self.descriptor, 4096, 0)

    def _silence_s(self) -> float:
        """Seconds since the last heartbeat, both by the file server's clock."""
        probe = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        probe.touch()
        try:
            return probe.stat().st_mtime - os.fstat(self.descriptor).st_mtime
        finally:
            probe.unlink()

    def beat(self) -> None:
        os.utime(self.descriptor)

    def release(self) -> None:
        # first the name, then the lock: whoever opened the file in between finds it removed
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


class _ObjectLock:
    """An object that is put only where there is none."""

    def __init__(self, url: str, doing: str) -> None:
        self.where, self.doing = url, doing
        self.files = file_system(fsspec.utils.get_protocol(url), asynchronous=False)
        self.key = self.files._strip_protocol(url)
        self.mine = Holder.me()

    def acquire(self) -> Holder | None:
        dead: Holder | None = None
        for _ in range(2):
            if self._put_new():
                return dead
            holder = self._holder()
            if holder is not None and not self._is_dead(holder):
                raise _busy(self.where, holder, self.doing)
            dead = holder
            with contextlib.suppress(FileNotFoundError):
                self.files.rm_file(self.key)
        raise _busy(self.where, self._holder(), self.doing)

    def _put_new(self) -> bool:
        try:
            self.files.pipe_file(self.key, _encode(self.mine), mode="create")
        except FileExistsError:
            return False
        except (FileNotFoundError, PermissionError):  # no such bucket, or not for us
            raise
        except (OSError, NotImplementedError, TypeError) as error:
            if getattr(error, "errno", None) == errno.EEXIST or "PreconditionFailed" in repr(error):
                return False
            raise SherlockError(
                f"the lock cannot be written ({error})",
                where=self.where,
                remedy="the store must take conditional puts (If-None-Match)",
            ) from error
        return True

    def _holder(self) -> Holder | None:
        self.files.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            return _parse(self.files.cat_file(self.key))
        return None

    def _is_dead(self, holder: Holder) -> bool:
        return holder.is_dead_here or time.time() - holder.beat > STALE_S

    def beat(self) -> None:
        self.mine = replace(self.mine, beat=time.time())
        self.files.pipe_file(self.key, _encode(self.mine))

    def release(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.files.rm_file(self.key)
