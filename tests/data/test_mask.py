"""The mask rule: signal per subject, voxels in common, grey matter, files, and its refusals."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nilearn.datasets import load_mni152_gm_template

from sherlock_data import mask
from sherlock_data.errors import InputError, UnavailableError
from sherlock_data.grid import Grid
from sherlock_data.recipes import MaskRule

MNI_3MM = Grid(
    (61, 73, 61),
    np.array([[3, 0, 0, -90], [0, 3, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1.0]]),
    "MNI152",
)
TINY = Grid((2, 2, 1), np.eye(4), "native")


def fractions(*subjects: list[float]) -> np.ndarray:
    """One row of four voxels per subject, shape (subject, 2, 2, 1)."""
    return np.array(subjects, dtype=np.float32).reshape(-1, 2, 2, 1)


@pytest.mark.parametrize(
    ("share", "rule", "expected"),
    [
        pytest.param(0.96, 0.95, True, id="above"),
        pytest.param(0.95, 0.95, False, id="exactly the share is not more than it"),
        pytest.param(19 / 20, 0.95, False, id="19 of 20 volumes"),
        pytest.param(1.0, 0.95, True, id="always"),
        pytest.param(0.0, 0.0, False, id="never"),
        pytest.param(float("nan"), 0.0, False, id="subject without a valid volume"),
    ],
)
def test_signal_is_more_than_the_share_of_volumes(
    share: float, rule: float, expected: bool
) -> None:
    found = mask.signal(np.full((1, 1, 1, 1), share, np.float32), MaskRule(signal_fraction=rule))
    assert found.item() is expected


@pytest.mark.parametrize(
    ("subject_fraction", "expected"),
    [
        pytest.param(0.01, [1, 1, 1, 0], id="any subject"),
        pytest.param(0.5, [1, 1, 0, 0], id="half of four is two"),
        pytest.param(0.75, [1, 0, 0, 0], id="three of four"),
        pytest.param(1.0, [1, 0, 0, 0], id="all"),
    ],
)
def test_the_mask_is_what_enough_subjects_share(
    subject_fraction: float, expected: list[int]
) -> None:
    fraction = fractions([1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0])
    found, has_signal = mask.make(fraction, TINY, MaskRule(subject_fraction=subject_fraction))
    assert found.ravel().tolist() == [bool(v) for v in expected]
    assert has_signal.sum() == 7


def test_nine_of_seventeen_is_half_and_eight_is_not() -> None:
    has_signal = np.zeros((17, 2, 1, 1), dtype=bool)
    has_signal[:9, 0] = True
    has_signal[:8, 1] = True
    found = mask.common(has_signal, np.ones(17, dtype=bool), MaskRule(subject_fraction=0.5))
    assert found.ravel().tolist() == [True, False]


def test_a_subject_without_scans_is_not_counted() -> None:
    fraction = fractions([1, 0, 0, 0], [np.nan] * 4)
    found, has_signal = mask.make(fraction, TINY, MaskRule(subject_fraction=1.0))
    assert found.sum() == 1
    assert not has_signal[1].any()


@given(
    shares=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
    low=st.floats(0, 0.98),
    step=st.floats(0, 0.01),
)
def test_a_stricter_rule_never_adds_a_voxel(shares: list[float], low: float, step: float) -> None:
    fraction = fractions(shares)
    loose = mask.signal(fraction, MaskRule(signal_fraction=low))
    strict = mask.signal(fraction, MaskRule(signal_fraction=low + step))
    assert not (strict & ~loose).any()


@pytest.mark.parametrize(
    ("share", "scanned"),
    [
        pytest.param(0.0, 1, id="no signal"),
        pytest.param(np.nan, 0, id="nobody scanned: no voxel is common to no subject"),
    ],
)
def test_an_empty_mask_is_an_error_that_says_how_to_mend_it(share: float, scanned: int) -> None:
    with pytest.raises(InputError) as refusal:
        mask.make(fractions([share] * 4), TINY, MaskRule())
    assert str(refusal.value) == (
        "mask: the mask is empty: no voxel of 4 meets "
        "{'signal_fraction': 0.95, 'subject_fraction': 0.5} "
        f"in {scanned} scanned subjects; "
        "lower signal_fraction or subject_fraction, or check that the scans hold signal"
    )


def test_grey_matter_on_the_sherlock_grid_is_about_51000_voxels() -> None:
    everywhere = np.ones((1, *MNI_3MM.shape), dtype=np.float32)
    found, _ = mask.make(everywhere, MNI_3MM, MaskRule(grey_matter=0.25))
    assert 50_000 < found.sum() < 53_000
    # the two hemispheres alike, the corner of the grid outside
    left = found[:30].sum()
    assert abs(left - found[31:].sum()) < 0.05 * left
    assert not found[0, 0, 0]


def test_grey_matter_is_where_the_one_millimetre_map_reaches_the_threshold() -> None:
    """A grid on the map's own voxels needs no interpolation: its values are the map's."""
    template = load_mni152_gm_template(resolution=1)
    first = np.array([98, 112, 45])
    affine = template.affine.copy()
    affine[:3, 3] = (template.affine @ [*first, 1])[:3]
    there = template.get_fdata()[98:101, 112:115, 45:48]
    threshold = there[1, 1, 1]
    found = mask.grey_matter(Grid((3, 3, 3), affine, "MNI152"), threshold)
    assert found[1, 1, 1]
    np.testing.assert_array_equal(found, there >= threshold)


def test_grey_matter_of_a_native_grid_is_unavailable() -> None:
    with pytest.raises(UnavailableError) as refusal:
        mask.make(fractions([1, 1, 1, 1]), TINY, MaskRule(grey_matter=0.25))
    assert str(refusal.value) == (
        "mask: grey_matter: a grey-matter mask needs MNI152 space, this dataset is in native; "
        "give a mask file (`mask: {file: ...}`) in the dataset's own space"
    )


def test_scans_that_lie_outside_the_brain_of_the_template_are_named() -> None:
    affine = np.eye(4)
    affine[2, 3] = 500  # half a metre above the head
    with pytest.raises(UnavailableError) as refusal:
        mask.make(
            fractions([1, 1, 1, 1]), Grid((2, 2, 1), affine, "MNI152"), MaskRule(grey_matter=0.25)
        )
    assert str(refusal.value) == (
        "mask: grey_matter: no voxel of the mask reaches 0.25 on the grey-matter map; "
        "check that the scans lie in MNI152 space"
    )


@pytest.fixture
def mask_file(tmp_path: Path) -> Path:
    """A mask of voxels (0, 0, 0) and (1, 1, 0) on the tiny grid."""
    values = np.zeros((2, 2, 1), dtype=np.uint8)
    values[0, 0, 0] = values[1, 1, 0] = 1
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "mask.nii.gz")
    return tmp_path / "mask.nii.gz"


def test_a_mask_file_on_the_same_grid_is_taken_as_it_is(mask_file: Path) -> None:
    fraction = fractions([1, 1, 0, 0])
    rule = MaskRule(file=mask_file.name)
    found, has_signal = mask.make(fraction, TINY, rule, raw=mask_file.parent)
    assert found.ravel().tolist() == [True, False, False, True]
    assert has_signal.ravel().tolist() == [True, True, False, False]


def test_a_mask_file_on_a_finer_grid_is_resampled_by_nearest_neighbour(tmp_path: Path) -> None:
    fine = np.zeros((4, 4, 2), dtype=np.uint8)
    fine[:2, :2] = 1
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    affine[:3, 3] = -0.25
    nibabel.save(nibabel.Nifti1Image(fine, affine), tmp_path / "fine.nii")
    assert mask.from_file(tmp_path / "fine.nii", TINY).ravel().tolist() == [
        True,
        False,
        False,
        False,
    ]


def test_a_mask_in_a_template_space_is_refused_on_a_native_grid(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.ones((2, 2, 1), dtype=np.uint8), np.eye(4))
    image.set_sform(np.eye(4), code=4)
    nibabel.save(image, tmp_path / "mni.nii")
    with pytest.raises(
        UnavailableError, match=r"mni\.nii: lies in MNI152 space.*dataset in native"
    ):
        mask.from_file(tmp_path / "mni.nii", TINY)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(
            lambda p: None,
            r"no such file; `mask: \{file: \.\.\.\}` is relative to the raw folder",
            id="missing",
        ),
        pytest.param(
            lambda p: p.write_bytes(b"text"),
            r"not a readable image \(.*\); give a 3-D NIfTI file \(\.nii or \.nii\.gz\)",
            id="not an image",
        ),
        pytest.param(
            lambda p: nibabel.save(nibabel.Nifti1Image(np.ones((2, 2, 1, 3), "u1"), np.eye(4)), p),
            "has 4 dimensions .*; give one 3-D volume",
            id="a series",
        ),
        pytest.param(
            lambda p: nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 1), "u1"), np.eye(4)), p),
            "has no voxel on the scan's grid; check its affine and its space",
            id="empty",
        ),
    ],
)
def test_an_unusable_mask_file_is_named(tmp_path: Path, make: object, message: str) -> None:
    path = tmp_path / "mask.nii"
    make(path)
    with pytest.raises(InputError, match=rf"mask\.nii: {message}$"):
        mask.from_file(path, TINY)
