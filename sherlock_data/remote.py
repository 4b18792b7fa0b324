"""Stores that lie behind a URL (``s3://...``): their place, and a plain word when it is closed."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import fsspec
from upath import UPath
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from sherlock_data.errors import SherlockError, StoreError, did_you_mean

_LOG = logging.getLogger(__name__)

#: a listing is never taken from memory: other threads, workers and machines write too
OPTIONS = {"use_listings_cache": False}
#: file systems in use: by protocol, whether asynchronous, and process
_open: dict[tuple[str, bool, int], Any] = {}
_making = threading.Lock()
#: protocols that read a file by way of another: nothing holds the members of an archive, which may
#: be links or lead out of it, to the place that was named
_ARCHIVES = frozenset({"zip", "tar", "libarchive"})
_DETOURS = _ARCHIVES | {"simplecache", "filecache", "blockcache", "cached", "reference", "dir"}
#: libraries whose own exceptions speak of credentials, endpoints and the network
_CLIENTS = ("botocore", "aiobotocore", "aiohttp")


def is_remote(path: object) -> bool:
    """Whether a path is a URL that fsspec opens, rather than a place on this machine's disks."""
    return "://" in str(path)


def locate(path: str | Path) -> Path:
    """Return a path to go on from by ``/``, ``.name`` and ``.parent``, whether folder or URL.

    A URL becomes universal_pathlib's path, which has the same manners (``Path`` itself would make
    ``s3:/`` of ``s3://``).

    Raises
    ------
    StoreError
        If fsspec knows no such protocol, or it reads by way of another, as `zip`.
    """
    if not is_remote(path):
        return Path(path)
    _check_protocol(fsspec.utils.get_protocol(str(path)))
    return cast("Path", UPath(str(path)))


def _check_protocol(protocol: str) -> None:
    if protocol in _ARCHIVES:
        raise StoreError(
            "an archive is not read in place",
            where=f"{protocol}://",
            remedy="unpack it and name the folder",
        )
    if protocol in _DETOURS or protocol not in fsspec.available_protocols():
        raise StoreError(
            "nothing here opens such an address",
            where=f"{protocol}://",
            remedy=did_you_mean(protocol, ("s3", "gs", "abfs")),
        )


def object_store(url: str, read_only: bool) -> FsspecStore:
    """Return zarr's own store object for a URL."""
    files = file_system(fsspec.utils.get_protocol(url), True)
    return FsspecStore(files, path=files._strip_protocol(url), read_only=read_only)


def file_system(protocol: str, asynchronous: bool) -> Any:
    """Return the one fsspec file system of this process for a protocol.

    fsspec itself makes one for every thread, each with connections of its own that no one closes.

    Raises
    ------
    StoreError
        If fsspec knows no such protocol, or it reads by way of another, as `zip`.
    """
    _check_protocol(protocol)
    key = (protocol, asynchronous, os.getpid())
    with _making:
        if key not in _open:
            _LOG.debug("connecting to %s://", protocol)
            options = {**OPTIONS, "skip_instance_cache": True}
            if asynchronous:
                _open[key] = FsspecStore.from_url(f"{protocol}://", storage_options=options).fs
            else:
                _open[key] = fsspec.filesystem(protocol, **options)
        return _open[key]


@atexit.register
def forget() -> None:
    """Close every connection; the next use asks the environment for address and credentials."""
    while _open:
        (_, asynchronous, process), files = _open.popitem()
        client = getattr(files, "_s3", None)
        if client is not None and process == os.getpid():
            loop_sync = sync if asynchronous else functools.partial(_sync_in, files)
            with suppress(OSError, TimeoutError):
                loop_sync(client.close())


def _sync_in(files: Any, coroutine: Any) -> None:
    """Wait for a coroutine in the loop of a file system that has one of its own."""

    async def wait() -> None:
        await coroutine

    fsspec.asyn.sync(files.loop, wait)


@contextmanager
def plainly(path: object) -> Iterator[None]:
    """Say in one line why a remote place cannot be used.

    Raises
    ------
    StoreError
        For whatever the network, the bucket or the credentials refuse. What happens to local
        paths, and our own failures, pass as they are.
    """
    try:
        yield
    except SherlockError:
        raise
    except ImportError as error:
        if not is_remote(path):
            raise
        raise StoreError(
            f"needs a package that is not installed ({error})",
            where=path,
            remedy="for s3://, pip install 'sherlock-zoo[s3]'",
        ) from error
    except Exception as error:
        theirs = type(error).__module__.partition(".")[0] in _CLIENTS
        if not is_remote(path) or not (theirs or isinstance(error, OSError)):
            raise
        raise StoreError(
            f"cannot be reached ({error})",
            where=path,
            remedy="check the address, the bucket and the credentials",
        ) from error
