"""A whole good example, as small as every command accepts: raw files, stores, a run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
import nibabel
import numpy as np
from click.testing import CliRunner, Result
from sherlock_cli import data, models, train

COMMANDS = {
    "sherlock-data": data.main,
    "sherlock-models": models.main,
    "sherlock-train": train.main,
}
CATALOG = """\
datasets:
  lab:
    title: A film in a small scanner
    repetition_time_s: 1.5
    space: native
    bold: s{subject}.nii.gz
    subjects: 2
    runs:
      - {name: run-1, volumes: 60, movie: film.mp4}
      - {name: run-2, volumes: 60, movie: film.mp4}
    annotations: sheet.tsv
    atlas: quarters
atlases:
  quarters: {image: atlas.nii, labels: atlas.tsv, space: native}
stores:
  stimulus: {kind: stimulus, width: 8, height: 6, bands: 4, mfcc: 3, mel: 4}
  features: {kind: features, files: {pitch: pitch.npy}}
  pca: {kind: pca, of: voxels, components: 4}
models:
  toy: {architecture: dense, brain: parcels, stimulus: [video, audio], hidden: [4]}
"""
SHAPE, VOLUMES = (4, 3, 2), 120
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
#: stores the corpus damages; frames would only be large
STORES = ("volumes", "voxels", "parcels", "pca", "stimulus", "annotations", "features")
SHORT = ("--steps", "2", "--batch-size", "8", "--set", "validate_every=2")


def call(command: str, *arguments: object) -> Result:
    """Run `sherlock-...` as a shell would, in this process and in this folder."""
    return CliRunner().invoke(COMMANDS[command], [str(argument) for argument in arguments])


def write_raw(raw: Path) -> None:
    """Write two scans, a film of 91 s, an atlas, a sheet, an array and their catalogue."""
    rng = np.random.default_rng(0)
    raw.mkdir(parents=True)
    for subject in (1, 2):
        values = rng.normal(1000, 30, size=(*SHAPE, VOLUMES)).astype(np.int16)
        write_image(raw / f"s{subject}.nii.gz", values)
    quarters = np.arange(1, 5, dtype=np.int16)[:, None, None] * np.ones(SHAPE, np.int16)
    write_image(raw / "atlas.nii", quarters)
    rows = [f"{n}\t7Networks_{'LH' if n < 3 else 'RH'}_Net{n % 2}_{n}" for n in range(1, 5)]
    (raw / "atlas.tsv").write_text("\n".join(["index\tname", *rows]) + "\n")
    sheet = ["run\tonset\tduration\tmusic\tplace", "1\t0\t45\tYes\tflat", "1\t45\t45\tNo\tstreet"]
    sheet += ["2\t0\t30\tNo\tflat", "2\t30\t60\tYes\tstreet"]
    (raw / "sheet.tsv").write_text("\n".join(sheet) + "\n")
    np.save(raw / "pitch.npy", rng.normal(size=(VOLUMES, 2)).astype(np.float32))
    runs = [{"run": f"run-{n}", "volumes": 60} for n in (1, 2)]
    (raw / "pitch.json").write_text(json.dumps({"repetition_time_s": 1.5, "runs": runs}))
    write_movie(raw / "film.mp4", seconds=91)
    (raw / "catalog.yaml").write_text(CATALOG)


def write_image(path: Path, values: np.ndarray) -> None:
    """Write a NIfTI image; a fourth axis is time at a TR of 1.5 s."""
    image = nibabel.Nifti1Image(values, AFFINE, dtype=values.dtype)
    if values.ndim == 4:
        image.header.set_zooms((3, 3, 3, 1.5))
        image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)


def write_movie(path: Path, seconds: float, *, picture: bool = True, sound: bool = True) -> None:
    """Write a test card of 32 x 18 pixels at 2 frames a second, with a tone."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-loglevel", "error"]
    if picture:
        command += ["-f", "lavfi", "-i", f"testsrc2=s=32x18:r=2:d={seconds}"]
    if sound:
        command += ["-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=8000:d={seconds}"]
    command += ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "40", "-pix_fmt", "yuv420p"]
    subprocess.run(
        [*command, "-c:a", "aac", "-ac", "2", "-b:a", "24k", f"file:{path}"],
        check=True,
        capture_output=True,
    )


def make(folder: Path, names: Sequence[str] = STORES) -> None:
    """Fill a folder: `raw/`, `stores/lab/`, `runs/toy/`, everything made by the commands."""
    write_raw(folder / "raw")
    catalog = ["--catalog", folder / "raw/catalog.yaml"]
    stores = ["--out", folder / "stores", "--workers", 1]
    checked("sherlock-data", "build", "lab", *names, *catalog, *stores)
    data_and_run = ["--data", folder / "stores/lab", "--out", folder / "runs/toy"]
    checked("sherlock-train", "toy", *data_and_run, *catalog, *SHORT)


def checked(command: str, *arguments: object) -> None:
    """Run a command that must do."""
    outcome = call(command, *arguments)
    if outcome.exit_code != 0:
        raise RuntimeError(f"{command} {arguments}: {outcome.output}") from outcome.exception
