"""Raw pictures sent through ffmpeg into a movie file."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from sherlock_data.errors import InputError


def encode(
    arguments: Sequence[str], blocks: Iterable[NDArray[np.generic]], out: Path, name: object
) -> None:
    """Let ffmpeg write what it reads from its standard input.

    Parameters
    ----------
    arguments : sequence of str
        Inputs (``-`` is the pictures) and codecs; the output file comes last by itself.
    blocks : iterable of ndarray
        Pictures as bytes, drawn while ffmpeg works; one block in memory at a time.
    out : Path
        The file to write; what is there is replaced.
    name : object
        What to call it in an error.

    Raises
    ------
    InputError
        If ffmpeg fails; ``out`` may then hold half a movie.
    """
    quiet = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-loglevel", "error"]
    with tempfile.TemporaryFile() as errors:
        command = [*quiet, *arguments, f"file:{out}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors) as process:
            _feed(process, blocks)
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    if process.returncode != 0:
        raise InputError(
            f"ffmpeg could not write it ({said[-1] if said else 'it did not say why'})",
            where=name,
            remedy="check the space left, and the ffmpeg that IMAGEIO_FFMPEG_EXE may name",
        )


def _feed(process: subprocess.Popen[bytes], blocks: Iterable[NDArray[np.generic]]) -> None:
    """Send blocks; when ffmpeg has closed the pipe its exit status says why."""
    stdin = process.stdin
    if stdin is None:
        raise ValueError("ffmpeg was started without a pipe")
    try:
        with contextlib.suppress(BrokenPipeError):
            for block in blocks:
                stdin.write(np.ascontiguousarray(block).data)
    except BaseException:
        process.kill()
        raise
    finally:
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
