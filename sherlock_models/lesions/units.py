"""Units to lesion: parcels, networks, components, a region of an image, or names.

Legend: E = elements of the brain a unit is cut out of: the brain layer's own units or, behind a
code (`pca`, a stage-1 code), the voxels. A grid's elements are its cells in the order (x, y, z).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sherlock_data import store
from sherlock_data.atlas import load_atlas
from sherlock_data.catalog import load_catalog
from sherlock_data.errors import ConfigError, InputError, did_you_mean, or_beside
from sherlock_data.grid import Grid, check_template, on_grid, read_volume
from sherlock_models.brain_map import brain_store

if TYPE_CHECKING:
    from sherlock_models.run import Run

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

#: ways to name all units of a kind
KINDS = ("parcels", "networks", "components")
#: how the units of a code are called, before their number
COMPONENT = "component-"
#: share of a parcel's voxels that a region must hold to count the parcel as its own
MOST = 0.5


@dataclass(frozen=True)
class Unit:
    """A part of the brain that is replaced as one.

    Attributes
    ----------
    name : str
    index : ndarray of int64, sorted
        Its elements, those with signal only.
    network : str
        "" where there is none, or more than one.
    """

    name: str
    index: IntArray
    network: str = ""


def of_the_layer(units: Sequence[Unit]) -> bool:
    """Whether units are components: the brain layer's own, also where voxels lie behind them."""
    return all(unit.name.startswith(COMPONENT) for unit in units)


@dataclass(frozen=True)
class Labels:
    """Which parcel every element belongs to.

    Attributes
    ----------
    parcel : ndarray of int64, (E,)
        Row in `names`; -1 outside of every parcel.
    names, networks : ndarray of str objects
    """

    parcel: IntArray
    names: NDArray[np.object_]
    networks: NDArray[np.object_]


class Elements:
    """What a run's units are made of, and where it lies.

    Parameters
    ----------
    run : Run
    signal : ndarray of bool, (E,)
        Elements with signal in at least one held-out subject; the others are in no unit.
    components : int
        Units of the brain layer where it is a code, else 0.
    """

    def __init__(self, run: Run, signal: BoolArray, components: int = 0) -> None:
        self.config, self.signal, self.components = run.config, signal, components
        self.store: xr.Dataset = brain_store(run.config)

    @property
    def dim(self) -> str:
        """`parcel`, `voxel`, `x` of a grid, or whatever a series without a place calls it."""
        return str(self.store["bold"].dims[2])

    @cached_property
    def names(self) -> NDArray[np.object_]:
        """Label of every element, (E,)."""
        if self.dim in self.store.coords and self.store["bold"].ndim == 3:
            return np.array([str(name) for name in self.store[self.dim].values], dtype=object)
        return np.array([str(number) for number in range(len(self.signal))], dtype=object)

    @cached_property
    def positions(self) -> NDArray[np.float64] | None:
        """Place of every element in mm, (E, 3); None where the store does not say."""
        if self.dim == "x":
            axes = [self.store[axis].values for axis in "xyz"]
            return np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)
        if not set("xyz") <= set(self.store.coords):
            return None
        return np.stack([np.asarray(self.store[a].values, np.float64) for a in "xyz"], axis=1)

    @cached_property
    def grid(self) -> Grid:
        """Grid the elements lie on.

        Raises
        ------
        ConfigError
            If the store does not say.
        """
        if "grid" not in self.store.coords:
            raise ConfigError(
                f"the units of '{self.config.brain}' have no place on a grid",
                where="--units",
                remedy="name units by their labels",
            )
        return Grid.decode(self.store["grid"])

    def at_voxels(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Values of a volume (x, y, z) at every element, (E,)."""
        if self.dim == "x":
            return volume.reshape(-1)
        ijk = [self.store[axis].values for axis in "ijk"]
        return np.asarray(volume[tuple(ijk)])

    @cached_property
    def labels(self) -> Labels:
        """Parcels of the elements, by the store's own labels, the parcels store, or the atlas.

        Raises
        ------
        ConfigError
            If there is neither.
        """
        if self.dim == "parcel":
            networks = _text(self.store["network"]) if "network" in self.store else _blank(self)
            return Labels(np.arange(len(self.signal)), self.names, networks)
        path = f"{self.config.data.rstrip('/')}/parcels.zarr"
        if store.state(path) == "complete" and "label" in (parcels := store.open_store(path)):
            return self._by_image(
                np.asarray(parcels["label"].values),
                Grid.decode(parcels["grid"]),
                parcels["atlas_index"].values,
                _text(parcels["parcel"]),
                _text(parcels["network"]),
            )
        return self._by_atlas()

    def _by_atlas(self) -> Labels:
        catalog, dataset = load_catalog(self.config.catalog), str(self.store.attrs["dataset"])
        name = catalog.datasets[dataset].atlas if dataset in catalog.datasets else None
        if name is None:
            raise ConfigError(
                "nothing says which parcel a unit belongs to",
                where=self.config.data,
                remedy="build the parcels store, or name a region by an image",
            )
        atlas = load_atlas(name, catalog.atlas(name))
        labels = atlas.on_grid(self.grid)
        return self._by_image(labels, self.grid, atlas.index, atlas.label, atlas.network)

    def _by_image(
        self,
        labels: NDArray[Any],
        grid: Grid,
        values: NDArray[Any],
        names: NDArray[np.object_],
        networks: NDArray[np.object_],
    ) -> Labels:
        import nibabel

        image = nibabel.Nifti1Image(labels.astype(np.int32), grid.affine)
        here = self.at_voxels(on_grid(image, self.grid, "nearest"))
        order = np.argsort(values)
        row = order[np.searchsorted(values, here, sorter=order).clip(0, len(values) - 1)]
        return Labels(np.where(values[row] == here, row, -1), names, networks)


def find_units(elements: Elements, wanted: str | Sequence[str]) -> list[Unit]:
    """Turn what a user names into units.

    Parameters
    ----------
    elements : Elements
    wanted : str or sequence of str
        `parcels`, `networks`, `components`, a NIfTI file, or names of parcels, networks or
        elements (a string with commas is a list).

    Raises
    ------
    ConfigError
        If a name is unknown (the nearest known one is said), a unit is empty, or the brain layer
        has no such units.
    InputError, UnavailableError
        If an image cannot be read, is of another space, or misses the brain.
    """
    if isinstance(wanted, str):
        if wanted in KINDS:
            return _all(elements, wanted)
        wanted = [wanted] if is_image(wanted) else [name.strip() for name in wanted.split(",")]
    found = [unit for name in wanted for unit in _named(elements, name)]
    if not found:
        raise ConfigError("no unit is named", where="--units", remedy=f"say {', '.join(KINDS)}")
    twice = [unit.name for unit in found if [u.name for u in found].count(unit.name) > 1]
    if twice:
        raise ConfigError(f"'{twice[0]}' is there twice", where="--units", remedy="name it once")
    return found


def _all(elements: Elements, kind: str) -> list[Unit]:
    if kind == "components":
        if not elements.components:
            raise ConfigError(
                f"the brain layer '{elements.config.brain}' has no components",
                where="--units",
                remedy="say parcels or networks, or train a pca entry",
            )
        return [Unit(f"{COMPONENT}{c}", np.array([c])) for c in range(elements.components)]
    labels = elements.labels
    named = _parcels(elements, labels) if kind == "parcels" else _networks(elements, labels)
    units = [unit for unit in named.values() if len(unit.index)]
    if not units:
        raise ConfigError(
            f"there are no {kind} with signal", where="--units", remedy="name units or an image"
        )
    return units


def _parcels(elements: Elements, labels: Labels) -> dict[str, Unit]:
    inside = np.flatnonzero(elements.signal & (labels.parcel >= 0))
    order = inside[np.argsort(labels.parcel[inside], kind="stable")]
    edges = np.searchsorted(labels.parcel[order], np.arange(len(labels.names) + 1))
    return {
        str(name): Unit(str(name), order[edges[row] : edges[row + 1]], str(network))
        for row, (name, network) in enumerate(zip(labels.names, labels.networks, strict=True))
    }


def _networks(elements: Elements, labels: Labels) -> dict[str, Unit]:
    found = {}
    for name in dict.fromkeys(str(n) for n in labels.networks if str(n)):
        mine = np.isin(labels.parcel, np.flatnonzero(labels.networks == name))
        found[name] = Unit(name, np.flatnonzero(mine & elements.signal), name)
    return found


def _named(elements: Elements, name: str) -> list[Unit]:
    if is_image(name):
        return region(elements, Path(name))
    known: dict[str, Unit] = {}
    try:
        labels = elements.labels
        known = {**_parcels(elements, labels), **_networks(elements, labels)}
    except ConfigError:
        if elements.dim == "parcel":
            raise
    if name in known:
        return [_with_signal(known[name])]
    if elements.dim != "x" and name in elements.names:
        index = np.flatnonzero(elements.names == name)
        return [_with_signal(Unit(name, index[elements.signal[index]]))]
    if elements.components and name.startswith(COMPONENT):
        number = name.removeprefix(COMPONENT)
        if number.isdigit() and int(number) < elements.components:
            return [Unit(name, np.array([int(number)]))]
    raise ConfigError(
        f"no unit '{name}'", where="--units", remedy=did_you_mean(name, [*known, *KINDS])
    )


def _with_signal(unit: Unit) -> Unit:
    if not len(unit.index):
        raise ConfigError(
            f"'{unit.name}' is empty: no held-out subject has signal there",
            where="--units",
            remedy="name another unit",
        )
    return unit


def is_image(name: str) -> bool:
    """Whether a name is a file's."""
    return name.endswith((".nii", ".nii.gz"))


def region(elements: Elements, path: Path) -> list[Unit]:
    """Make units of an image: one of everything above 0, or one for each of its labels.

    Parameters
    ----------
    elements : Elements
    path : Path
        Resampled to the brain's grid by nearest neighbour. A parcel counts as inside where at
        least ``MOST`` of its voxels are.

    Raises
    ------
    InputError
        If the file is missing, is no image, or lies beside the brain.
    UnavailableError
        If its header names another template space than the dataset's.
    """
    if not path.is_file():
        raise InputError(
            "no such file",
            where=path,
            remedy=or_beside(path, "name a NIfTI image of the region"),
        )
    image = read_volume(path)
    check_template(image, elements.grid, path)
    volume = np.nan_to_num(np.asarray(on_grid(image, elements.grid, "nearest"), np.float64))
    values = np.unique(volume[volume > 0])
    labelled = len(values) > 1 and np.array_equal(values, np.round(values))
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    masks = {f"{stem}-{int(v)}": volume == v for v in values} if labelled else {stem: volume > 0}
    units = [Unit(name, _within(elements, mask)) for name, mask in masks.items()]
    units = [unit for unit in units if len(unit.index)]
    if not units:
        raise InputError(
            f"holds no unit of the brain layer '{elements.config.brain}'",
            where=path,
            remedy="check its affine: it must lie over the brain, in the dataset's space",
        )
    return units


def _within(elements: Elements, mask: BoolArray) -> IntArray:
    if elements.dim != "parcel":
        return np.flatnonzero(elements.at_voxels(mask) & elements.signal)
    if "label" not in elements.store:
        raise ConfigError(
            "the parcels do not say which voxels are theirs",
            where="--units",
            remedy="name parcels or networks",
        )
    label, values = elements.store["label"].values, elements.store["atlas_index"].values
    size = max(int(label.max()), int(values.max())) + 1
    whole = np.bincount(label.ravel(), minlength=size)[values]
    inside = np.bincount(label[mask], minlength=size)[values]
    return np.flatnonzero((inside >= MOST * whole) & (inside > 0) & elements.signal)


def _text(values: xr.DataArray) -> NDArray[np.object_]:
    return np.array([str(value) for value in values.values], dtype=object)


def _blank(elements: Elements) -> NDArray[np.object_]:
    return np.full(len(elements.signal), "", dtype=object)
