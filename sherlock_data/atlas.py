"""Parcellations: a label image with its table of names, on the scan's grid."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sherlock_data.catalog import AtlasEntry
from sherlock_data.errors import InputError, UnavailableError
from sherlock_data.grid import Grid, check_template, on_grid, read_volume

#: e.g. 7Networks_LH_Vis_1, 17Networks_RH_DefaultA_PFCm_2 (Schaefer et al. 2018)
SCHAEFER_NAME = re.compile(r"^\d+Networks_(?P<hemisphere>LH|RH)_(?P<network>[^_]+)_")


#: largest label: images and stores keep them as int32
LARGEST = int(np.iinfo(np.int32).max)


@dataclass(frozen=True)
class Atlas:
    """A parcellation.

    Attributes
    ----------
    name : str
    space : str
    image : nibabel image
        Whole numbers; 0 is background.
    index : ndarray of int32, shape (parcel,)
        Value of each parcel in the image, in the table's order.
    label, network, hemisphere : ndarray of str objects, shape (parcel,)
        Names; "" where the atlas has no network or hemisphere for a parcel.
    inputs : list of dict
        name, bytes and sha256 of the files it was read from.
    """

    name: str
    space: str
    image: Any
    index: NDArray[np.int32]
    label: NDArray[np.object_]
    network: NDArray[np.object_]
    hemisphere: NDArray[np.object_]
    inputs: list[dict[str, Any]]

    def on_grid(self, grid: Grid) -> NDArray[np.int32]:
        """Labels at the grid's voxels by nearest neighbour, shape (x, y, z), int32.

        Raises
        ------
        UnavailableError
            If the atlas is not in the grid's space.
        InputError
            If no parcel lies on the grid.
        """
        if not grid.lies_in(self.space):
            raise UnavailableError(
                f"is in {self.space} space, the dataset in {grid.space}",
                where=f"atlas {self.name}",
                remedy=f"name an atlas whose `space:` is {grid.space}",
            )
        check_template(self.image, grid, f"atlas {self.name}")
        labels = on_grid(self.image, grid, "nearest").astype(np.int32)
        if not labels.any():
            raise InputError(
                "no parcel lies on the scan's grid",
                where=f"atlas {self.name}",
                remedy="check the atlas's affine and its space",
            )
        return labels


def load_atlas(name: str, entry: AtlasEntry) -> Atlas:
    """Read an atlas that the catalogue names.

    Raises
    ------
    InputError
        If the image or the table is missing, unreadable, or they contradict one another.
    UnavailableError
        If ``source: nilearn`` cannot be fetched.
    """
    if entry.source is not None:
        return _fetch_schaefer(name, entry)
    if entry.image is None:  # refused by the catalogue; said again for entries made in Python
        raise InputError("has neither image nor source", where=f"atlas {name}")
    image = _label_image(entry.image)
    inputs = [_input(entry.image)]
    if entry.labels is None:
        index = np.unique(np.asanyarray(image.dataobj))
        index = index[index != 0]
        table = pd.DataFrame({"index": index, "name": [f"label-{i}" for i in index]})
    else:
        table = _read_table(entry.labels)
        inputs.append(_input(entry.labels))
    return _atlas(name, entry.space, image, table, inputs, where=entry.labels or entry.image)


def parse_schaefer(label: str) -> tuple[str, str]:
    """Network and hemisphere in a Schaefer name; ("", "") for any other name.

    >>> parse_schaefer("7Networks_LH_Vis_1")
    ('Vis', 'LH')
    """
    match = SCHAEFER_NAME.match(label)
    return (match["network"], match["hemisphere"]) if match else ("", "")


def _atlas(
    name: str,
    space: str,
    image: Any,
    table: pd.DataFrame,
    inputs: list[dict[str, Any]],
    where: object,
) -> Atlas:
    table = table[table["index"] != 0]
    for column in ("index", "name"):
        twice = table[column][table[column].duplicated()]
        if len(twice):
            raise InputError(
                f"{column} {twice.iloc[0]} is there twice", where=where, remedy="name parcels once"
            )
    values = np.unique(np.asanyarray(image.dataobj))
    unnamed = np.setdiff1d(values[values != 0], table["index"])
    if len(unnamed):
        raise InputError(
            f"{len(unnamed)} labels of the image have no name, the first is {unnamed[0]}",
            where=where,
            remedy="add their rows (index, name)",
        )
    label = table["name"].to_numpy(dtype=object)
    parsed = [parse_schaefer(text) for text in label]
    columns = {
        column: table[column].to_numpy(dtype=object)
        if column in table
        else np.array([pair[position] for pair in parsed], dtype=object)
        for position, column in enumerate(("network", "hemisphere"))
    }
    return Atlas(
        name, space, image, table["index"].to_numpy(np.int32), label, inputs=inputs, **columns
    )


def _label_image(path: Path) -> Any:
    if not path.is_file():
        raise InputError(
            "no such file", where=path, remedy="atlas paths: relative to the catalogue"
        )
    image = read_volume(path)
    values = np.asanyarray(image.dataobj)
    whole = np.round(values)
    if not np.array_equal(values, whole) or not 0 <= whole.min() <= whole.max() <= LARGEST:
        raise InputError(
            "holds values that are no labels (fractions, negative or huge numbers, NaN)",
            where=path,
            remedy="give a label image of whole numbers, 0 for background",
        )
    header = image.header.copy()
    header.set_data_dtype(np.int32)
    return nibabel.Nifti1Image(whole.astype(np.int32), image.affine, header)


def _read_table(path: Path) -> pd.DataFrame:
    remedy = "give a TSV with the columns index and name (network and hemisphere if you like)"
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        table["index"] = table["index"].astype(np.int64)
        table["name"] = table["name"].str.strip()
        if table["index"].abs().max() > LARGEST:
            raise ValueError(f"an index is above {LARGEST}")
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"no label table ({error.__class__.__name__}: {error})", where=path, remedy=remedy
        ) from None
    return table


def _fetch_schaefer(name: str, entry: AtlasEntry) -> Atlas:
    from nilearn.datasets import fetch_atlas_schaefer_2018

    try:
        found = fetch_atlas_schaefer_2018(
            n_rois=entry.parcels, yeo_networks=entry.networks, resolution_mm=2, verbose=0
        )
    except Exception as error:  # noqa: BLE001 - nilearn lets through whatever the network raises
        reason = " ".join(str(error).split())[:120]
        raise UnavailableError(
            f"nilearn could not fetch Schaefer's {entry.parcels} parcels "
            f"({error.__class__.__name__}: {reason})",
            where=f"atlas {name}",
            remedy=f"connect, or name files in your catalogue: "
            f"`atlases: {{{name}: {{image: ..., labels: ...}}}}`",
        ) from None
    image = Path(found["maps"])
    names = [n.decode() if isinstance(n, bytes) else str(n) for n in found["labels"]]
    names = [n for n in names if n.lower() != "background"]
    table = pd.DataFrame({"index": np.arange(1, len(names) + 1), "name": names})
    return _atlas(name, entry.space, _label_image(image), table, [_input(image)], where=image)


def _input(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest.hexdigest()}
