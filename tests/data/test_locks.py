"""One build of a store at a time; what died is taken over."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest

from sherlock_data import locks
from sherlock_data.errors import StoreError

HERE = socket.gethostname()
HOLD = "import sys, time; from sherlock_data import locks\nwith locks.held(sys.argv[1]):\n"


def lock_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def leave(path: Path, **changes: object) -> None:
    """Leave a lock file whose writer is gone."""
    holder = {"host": HERE, "pid": 1, "since": "2000-01-01T00:00:00+00:00", "beat": 0.0}
    lock_file(path).write_text(json.dumps(holder | changes))


@pytest.fixture(params=["disk", "objects"])
def path(request, tmp_path):
    if request.param == "disk":
        return tmp_path / "voxels.zarr"
    return f"memory://{tmp_path.name}/voxels.zarr"


def test_the_second_is_told_who_holds_it(path):
    with (
        locks.held(path) as dead,
        pytest.raises(StoreError, match=rf"being built by process {os.getpid()} on {HERE}, since"),
        locks.held(path),
    ):
        pass
    assert dead is None


def test_nothing_is_left_of_a_lock(path):
    with locks.held(path):
        pass
    with locks.held(path) as dead:
        assert dead is None
    files, key = fsspec.core.url_to_fs(str(path))
    assert not files.exists(f"{key}.lock")


def test_another_process_is_told_and_death_frees_the_lock(tmp_path):
    path = tmp_path / "voxels.zarr"
    code = HOLD + "    print('held', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(StoreError, match=f"being built by process {holder.pid} on {HERE}"),
            locks.held(path),
        ):
            pass
        holder.kill()
    assert locks.exists(path)
    with locks.held(path) as dead:
        assert dead is not None
        assert dead.pid == holder.pid
    assert not locks.exists(path)


@pytest.mark.parametrize(
    ("left", "silent_s", "taken"),
    [
        pytest.param({"pid": 2**22 + 1}, 0, True, id="dead-here"),
        pytest.param({"pid": os.getpid()}, 0, True, id="its-number-belongs-to-a-later-process"),
        pytest.param({"host": "elsewhere"}, 5, False, id="alive-elsewhere"),
        pytest.param({"host": "elsewhere"}, 1000, True, id="silent-elsewhere"),
    ],
)
def test_only_the_dead_are_taken_over(tmp_path, left, silent_s, taken):
    path = tmp_path / "voxels.zarr"
    leave(path, **left)
    then = time.time() - silent_s
    os.utime(lock_file(path), (then, then))
    if taken:
        with locks.held(path) as dead:
            assert dead is not None
            assert dead.since.startswith("2000")
        return
    with pytest.raises(StoreError, match="process 1 on elsewhere"), locks.held(path):
        pass
    assert lock_file(path).exists()


@pytest.mark.parametrize(
    ("age_s", "taken"), [pytest.param(10, False, id="alive"), pytest.param(1000, True, id="silent")]
)
def test_objects_of_the_silent_are_taken_over(tmp_path, age_s, taken):
    path = f"memory://{tmp_path.name}/voxels.zarr"
    holder = locks.Holder("elsewhere", 7, "2000-01-01T00:00:00+00:00", time.time() - age_s)
    files, key = fsspec.core.url_to_fs(f"{path}.lock")
    files.pipe_file(key, json.dumps(vars(holder)).encode())
    if taken:
        with locks.held(path) as dead:
            assert dead == holder
    else:
        with pytest.raises(StoreError, match="process 7 on elsewhere"), locks.held(path):
            pass
        assert files.exists(key)


def test_who_waits_takes_over_what_has_been_silent_long_enough(tmp_path, monkeypatch):
    silent_s = iter([0.0, 0.0, 1000.0])
    monkeypatch.setattr(locks._FileLock, "_silence_s", lambda lock: next(silent_s))
    monkeypatch.setattr(locks, "WAIT_S", 0.01)
    path = tmp_path / "run"
    leave(path, host="elsewhere")
    with locks.held(path, wait_s=60.0) as dead:
        assert dead is not None
        assert dead.host == "elsewhere"
    assert list(silent_s) == []


def test_who_waits_for_the_living_is_told_in_the_end(path, monkeypatch):
    monkeypatch.setattr(locks, "WAIT_S", 0.05)
    began = time.monotonic()
    with (
        locks.held(path),
        pytest.raises(StoreError, match=f"being built by process {os.getpid()}"),
        locks.held(path, wait_s=0.2),
    ):
        pass
    assert time.monotonic() - began > 0.2


def test_who_waits_comes_next(path, monkeypatch):
    monkeypatch.setattr(locks, "WAIT_S", 0.05)
    with locks.held(path):
        waiting = threading.Thread(target=_hold_and_let_go, args=(path,))
        waiting.start()
        time.sleep(0.2)
        assert waiting.is_alive()
    waiting.join(timeout=60)
    assert not waiting.is_alive()


def _hold_and_let_go(path: object) -> None:
    with locks.held(path, wait_s=60.0):
        pass


def test_a_holder_shows_that_it_lives(path, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT_S", 0.05)
    files, key = fsspec.core.url_to_fs(f"{path}.lock")

    def last() -> object:
        if isinstance(path, Path):
            return lock_file(path).stat().st_mtime_ns
        return json.loads(files.cat_file(key))["beat"]

    with locks.held(path):
        first, until = last(), time.time() + 5
        while last() == first and time.time() < until:
            time.sleep(0.02)
        assert last() != first


def _race(path: str, barrier: object, inside: object, most: object) -> None:
    barrier.wait()
    for _ in range(40):
        try:
            with locks.held(path):
                with inside.get_lock():
                    inside.value += 1
                    most.value = max(most.value, inside.value)
                time.sleep(0.001)
                with inside.get_lock():
                    inside.value -= 1
        except StoreError:
            time.sleep(0.0005)


def test_never_two_at_once(tmp_path):
    path = tmp_path / "voxels.zarr"
    leave(path, pid=2**22 + 1)  # they begin by taking over the same dead one
    context = multiprocessing.get_context("spawn")
    barrier, inside, most = context.Barrier(3), context.Value("i", 0), context.Value("i", 0)
    racers = [
        context.Process(target=_race, args=(str(path), barrier, inside, most)) for _ in range(3)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0, 0, 0]
    assert most.value == 1
    assert not locks.exists(path)


@pytest.mark.parametrize(
    ("host", "pid", "dead"),
    [
        pytest.param(HERE, 2**22 + 1, True, id="no-such-process"),
        pytest.param(HERE, os.getpid(), True, id="the-process-is-younger-than-the-lock"),
        pytest.param("elsewhere", 2**22 + 1, False, id="another-host-is-not-judged"),
    ],
)
def test_who_is_dead(host, pid, dead):
    assert locks.Holder(host, pid, "2000-01-01T00:00:00+00:00", 0.0).is_dead_here is dead
    assert not locks.Holder.me().is_dead_here


def test_a_second_build_is_refused_while_the_first_runs(dataset, series, monkeypatch):
    from sherlock_data.representations.volumes import VolumesPart

    dataset.write("s1.nii.gz", series[0])
    running, told = threading.Event(), threading.Event()
    whole = VolumesPart.run

    def waits(self, path, report):
        running.set()
        assert told.wait(30)
        return whole(self, path, report)

    monkeypatch.setattr(VolumesPart, "run", waits)
    first = threading.Thread(target=lambda: dataset.build("volumes"))
    first.start()
    assert running.wait(30)
    try:
        with pytest.raises(StoreError, match=r"volumes\.zarr: is being built by process"):
            dataset.build("volumes")
    finally:
        told.set()
        first.join()
    assert dataset.open("volumes").sizes["time"] == 20
    assert not locks.exists(dataset.path("volumes"))


def test_a_build_says_from_whom_it_took_over(dataset, series):
    from sherlock_data.build import Options, build

    dataset.write("s1.nii.gz", series[0])
    dataset.path("volumes").parent.mkdir(parents=True)
    leave(dataset.path("volumes"), pid=2**22 + 1)
    (outcome,) = build(dataset.scan(), dataset.catalog(), dataset.out, ["volumes"], Options())
    assert outcome.status == "built"
    assert f"took over from process {2**22 + 1} on {HERE}" in outcome.detail
