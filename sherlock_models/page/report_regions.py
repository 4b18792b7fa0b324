"""What the page shows of regions: maps to walk through, and the movie without each of them.

Legend: E = elements of the brain (units of the layer, or the voxels behind a code), (x, y, z) = the
grid, n = stills.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from sherlock_data.errors import SherlockError
from sherlock_models.brain_map import brain_store, to_image
from sherlock_models.film.decode import Teller, Told
from sherlock_models.film.panels import bytes_of, coloured
from sherlock_models.lesions.brain import Replacing
from sherlock_models.lesions.lesion_store import stimuli_of
from sherlock_models.lesions.replaced_unit import ReplacedUnit
from sherlock_models.lesions.units import Elements, Unit, find_units
from sherlock_models.page.pictures import MAP, SIGNED_MAPS
from sherlock_models.scoring.heldout import PREDICTED, Reader, Side

if TYPE_CHECKING:
    from sherlock_models.run import Run

IntArray = NDArray[np.int64]

#: parcels of which stills are made beside all networks; networks at most
STRONGEST, MOST_NETWORKS = 8, 24
#: ends of a difference's colours in the stills, grey levels
LEVELS = 15.0
#: cells of the grid that travel with the page, at most; a finer grid is thinned
MOST_CELLS = 1_000_000
#: the slices have a black ground
PALETTES = {"one-sided": MAP, "two-sided": SIGNED_MAPS["dark"]}


@dataclass(frozen=True)
class Regions:
    """Parts of the brain that a reader can choose.

    Attributes
    ----------
    units : list of Unit
        Networks, then the parcels whose lesion costs the movie most.
    of : ndarray of int64, (E,)
        Row in `units` of every element, the parcel before the network; -1 in none.
    parcels : dict of Unit
        All of them by name.
    """

    units: list[Unit]
    of: IntArray
    parcels: dict[str, Unit]


def find_regions(run: Run, lesions: xr.Dataset | None) -> Regions | None:
    """Choose the regions of the page; None where nothing says which parcel a unit belongs to."""
    replacing = Replacing(run, Side.of(run.data, "test"))
    elements = Elements(run, replacing.signal)
    try:
        parcels = {unit.name: unit for unit in find_units(elements, "parcels")}
    except SherlockError:  # a brain without labels: the page does without regions
        return None
    try:
        networks = find_units(elements, "networks")[:MOST_NETWORKS]
    except SherlockError:  # parcels that belong to no network
        networks = []
    units = networks + [parcels[name] for name in _strongest(lesions, parcels)]
    of = np.full(len(elements.signal), -1, dtype=np.int64)
    for row, unit in enumerate(units):
        of[unit.index] = row
    return Regions(units, of, parcels)


def _strongest(lesions: xr.Dataset | None, parcels: dict[str, Unit]) -> list[str]:
    """Parcels with the largest effects on any stimulus, each a stimulus in turn."""
    if lesions is None:
        return []
    names = [str(name) for name in lesions["unit"].values]
    ranks = [
        np.argsort(-lesions["effect"].values[:, column], kind="stable")
        for column in range(len(stimuli_of(lesions)))
    ]
    found: dict[str, None] = {}
    for row in np.stack(ranks, axis=1).ravel():
        if names[row] in parcels:
            found[names[row]] = None
        if len(found) == STRONGEST:
            break
    return list(found)


def stills(run: Run, units: Sequence[Unit], trs: IntArray) -> dict[str, Any] | None:
    """Decode held-out pictures whole and without each unit.

    Parameters
    ----------
    run : Run
    units : sequence of Unit
    trs : ndarray of int64, (n,)
        Held-out stimulus TRs.

    Returns
    -------
    dict or None
        ``trs``, ``seconds``, ``width``, ``height``; ``original``, ``decoded`` and by region
        ``lesioned`` and ``difference``: the n pictures one below the other as JPEG in base64. None
        where the run decodes no picture.
    """
    name = next(iter(run.model.sizes.pictures), None)
    if name is None or not len(trs) or not units:
        return None
    data = run.data
    test = Side.of(data, "test")
    subject = max(test.subjects.tolist(), key=lambda s: int(np.isin(trs, test.of_subject(s)).sum()))
    own = test.of_subject(subject)
    trs = trs[np.isin(trs, own)]
    read = torch.from_numpy(Reader(run, test).predicted(subject)[np.searchsorted(own, trs)])
    teller = Teller(run)
    whole = [told for told, _ in teller.tell(read, subject, trs)]
    truth = [teller.original({name: data.tables[name].values[tr].numpy()})[name] for tr in trs]
    found: dict[str, Any] = {
        "trs": trs.tolist(),
        "seconds": data.clock.time()[trs].tolist(),
        "original": _sheet([bytes_of(picture) for picture in truth]),
        "decoded": _sheet([bytes_of(told[name]) for told in whole]),
        "height": truth[0].shape[0],
        "width": truth[0].shape[1],
        "lesioned": [],
        "difference": [],
    }
    replacing = Replacing(run, test)
    for unit in units:
        replaced = ReplacedUnit(replacing, unit.name, "lesion", unit.index, replacing.space)
        less = [told for told, _ in teller.tell(replaced(read, subject, trs), subject, trs)]
        found["lesioned"].append(_sheet([bytes_of(told[name]) for told in less]))
        found["difference"].append(_sheet(_differences(whole, less, name)))
    return found


def _differences(whole: Sequence[Told], less: Sequence[Told], name: str) -> list[NDArray[np.uint8]]:
    pairs = zip(whole, less, strict=True)
    return [coloured(after[name] - before[name], LEVELS) for before, after in pairs]


def _sheet(pictures: Sequence[NDArray[np.uint8]]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(pictures)).save(buffer, "JPEG", quality=82)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def volumes(
    run: Run, arrays: xr.Dataset, lesions: xr.Dataset | None, regions: Regions | None
) -> dict[str, Any] | None:
    """Pack maps of the brain for a page that draws their slices itself.

    Returns
    -------
    dict or None
        ``shape``, ``affine`` (mm), ``head`` (grey), ``region`` and ``maps``: uint8 volumes in
        base64, x slowest; 0 is nothing. None where the units have no place in MNI space.
    """
    store = brain_store(run.config)
    if str(store.attrs["space"]) != "MNI152":
        return None
    images = {}
    for title, (values, kind) in _maps(arrays, lesions, regions).items():
        image = to_image(np.nan_to_num(values), store)
        if image is None:
            return None
        images[title] = (image, kind, np.isfinite(values))
    if not images:
        return None
    image = next(iter(images.values()))[0]
    grid = np.asarray(image.dataobj)
    step = max(1, int(np.ceil((grid.size / MOST_CELLS) ** (1 / 3))))
    thin = (slice(None, None, step),) * 3
    affine = image.affine @ np.diag([step, step, step, 1.0])
    packed = []
    for title, (one, kind, there) in images.items():
        inside = np.asarray(to_image(there.astype(np.float32), store).dataobj)[thin] > 0  # type: ignore[union-attr]
        packed.append({"title": title, **_quantised(np.asarray(one.dataobj)[thin], inside, kind)})
    where = np.zeros(grid[thin].shape, np.uint8)
    if regions is not None:
        told = to_image((regions.of + 1).astype(np.float32), store)
        where = np.asarray(told.dataobj)[thin].astype(np.uint8)  # type: ignore[union-attr]
    return {
        "shape": list(where.shape),
        "affine": affine.tolist(),
        "head": _text(_head(image)[thin]),
        "region": _text(where),
        "maps": packed,
        "palettes": {kind: _palette(name) for kind, name in PALETTES.items()},
    }


def _maps(
    arrays: xr.Dataset, lesions: xr.Dataset | None, regions: Regions | None
) -> dict[str, tuple[NDArray[Any], str]]:
    predictors = [str(name) for name in arrays["predictor"].values]
    r = arrays["r"].values[predictors.index(PREDICTED)]
    found = {"held-out r": (np.where(np.isfinite(r), np.maximum(r, 0), np.nan), "one-sided")}
    if lesions is not None and regions is not None:
        for target, values in effects_at(lesions, regions).items():
            if len(values) == len(r):
                found[f"lesion: what {target} loses"] = (values, "two-sided")
    return found


def effects_at(lesions: xr.Dataset, regions: Regions) -> dict[str, NDArray[np.float64]]:
    """Spread the effects of parcels and networks over their elements, (E,), by stimulus."""
    known = {**{unit.name: unit for unit in regions.units}, **regions.parcels}
    names = [str(name) for name in lesions["unit"].values]
    found = {}
    for column, target in enumerate(stimuli_of(lesions)):
        values = np.full(len(regions.of), np.nan)
        for row, name in enumerate(names):
            if name in known:
                values[known[name].index] = lesions["effect"].values[row, column]
        if np.isfinite(values).any():
            found[target] = values
    return found


def _quantised(values: NDArray[Any], inside: NDArray[np.bool_], kind: str) -> dict[str, Any]:
    """Scale to 1 to 255; 0 outside."""
    top = max(float(np.abs(values[inside]).max(initial=0.0)), 1e-6)
    low = -top if kind == "two-sided" else 0.0
    share = np.clip((values - low) / (top - low), 0, 1)
    levels = np.where(inside, np.rint(1 + 254 * share), 0).astype(np.uint8)
    return {"low": low, "high": top, "kind": kind, "data": _text(levels)}


def _head(like: Any) -> NDArray[np.uint8]:
    """Nilearn's MNI template on a grid, as grey levels."""
    from nilearn.datasets import load_mni152_template
    from nilearn.image import resample_to_img

    template = load_mni152_template(resolution=4)
    head = resample_to_img(
        template, like, interpolation="linear", force_resample=True, copy_header=True
    )
    values = np.nan_to_num(np.asarray(head.dataobj))
    top = max(float(values.max()), 1e-6)
    return np.asarray(np.rint(np.clip(values / top, 0, 1) * 255), dtype=np.uint8)


def _palette(name: str) -> str:
    return _text(np.asarray(mpl.colormaps[name](np.arange(256), bytes=True)[:, :3], np.uint8))


def _text(values: NDArray[np.uint8]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
