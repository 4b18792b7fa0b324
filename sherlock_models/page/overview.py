"""One picture of a run: held-out frames as shown and as decoded, and the map of r."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.image import imread

from sherlock_data.errors import ConfigError
from sherlock_models.brain_map import brain_store, to_image
from sherlock_models.page import pictures
from sherlock_models.scoring.evaluation_store import ARRAYS
from sherlock_models.scoring.heldout import MEASURED, PREDICTED

if TYPE_CHECKING:
    from sherlock_models.run import Run

FILE = "overview.png"
#: sources of the film strip, top to bottom, and what to call them
ROWS = {
    "original": "shown",
    PREDICTED: "decoded from the\npredicted brain",
    MEASURED: "decoded from one\nmeasured brain",
    "mean-frame": "mean frame",
}


def write_overview(run: Run) -> Path:
    """Draw `overview.png` in the run's folder.

    Parameters
    ----------
    run : Run
        Evaluated, with a movie among its stimuli.

    Raises
    ------
    ConfigError
        If the run's evaluation holds no pictures.
    """
    arrays: xr.Dataset = xr.open_zarr(run.path / ARRAYS)
    if "video" not in arrays:
        raise ConfigError("its stimulus has no pictures", where=run.path, remedy="use the report")
    figure = Figure(figsize=(11, 6.2), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(2, 1, height_ratios=[1.7, 1])
    _draw_film(figure.add_subfigure(grid[0]), arrays)
    _draw_brain(figure.add_subfigure(grid[1]), arrays, run)
    path = run.path / FILE
    temporary = path.with_suffix(f".{os.getpid()}.png")
    figure.savefig(temporary, dpi=100)
    temporary.replace(path)
    return path


def _draw_film(figure: Any, arrays: xr.Dataset) -> None:
    names = [str(name) for name in arrays["video_source"].values]
    rows = [name for name in ROWS if name in names]
    frames = arrays["video"].values
    axes = figure.subplots(len(rows), frames.shape[1], squeeze=False)
    for row, name in enumerate(rows):
        for column, axis in enumerate(axes[row]):
            axis.imshow(frames[names.index(name), column])
            axis.set_xticks([])
            axis.set_yticks([])
            if column == 0:
                axis.set_ylabel(ROWS[name], rotation=0, ha="right", va="center", fontsize=10)
            if row == 0:
                axis.set_title(f"TR {arrays['shown_tr'].values[column]}", fontsize=9)


def _draw_brain(figure: Any, arrays: xr.Dataset, run: Run) -> None:
    predictors = [str(name) for name in arrays["predictor"].values]
    r = arrays["r"].values[predictors.index(PREDICTED)]
    image = to_image(r, brain_store(run.config))
    if image is None:
        return
    axis = figure.subplots()
    axis.set_axis_off()
    axis.set_title(f"held-out r of every unit (median {np.nanmedian(r):.2f})", fontsize=10)
    drawn = pictures.glass_brain(image, "", "").light
    axis.imshow(imread(io.BytesIO(base64.b64decode(drawn)), format="png"))
