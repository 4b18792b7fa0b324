"""Memory that a training frees stays with its process; that of everybody else goes back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sherlock_models.memory import free_memory, keep_freed

MIB = 2**20
#: takes 64 MiB and frees it; prints how much of it the process still holds
TAKE_AND_FREE = """
import numpy, psutil
from sherlock_models.memory import keep_freed
{setting}
before = psutil.Process().memory_info().rss
taken = numpy.ones(64 * 2**20, dtype=numpy.uint8)
del taken
print(psutil.Process().memory_info().rss - before)
"""


def held_after(setting: str) -> int:
    code = TAKE_AND_FREE.format(setting=setting)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(done.stdout)


def test_freed_memory_is_kept_where_that_is_asked_for():
    if (
        "True"
        not in subprocess.run(
            [sys.executable, "-c", "from sherlock_models.memory import *; print(keep_freed())"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    ):
        pytest.skip("this C library has no mallopt")
    assert held_after("") < 8 * MIB
    assert held_after("keep_freed()") > 56 * MIB


def test_a_library_without_the_setting_is_told_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed() is False


def test_free_memory_is_less_than_all_of_it():
    assert 0 < free_memory() < 1 << 50
