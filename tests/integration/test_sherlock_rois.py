"""The main job on real data: 17 people's ROI series and the published annotations."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import yaml

import sherlock_data as sd
from sherlock_data.build import build
from sherlock_data.catalog import load_catalog
from sherlock_data.scan import resolve
from sherlock_models.feeding.loading import load_data
from sherlock_models.resolve import resolve as configure
from sherlock_models.run import load
from sherlock_models.scoring import evaluate
from sherlock_models.training.train import fit

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

ROIS = ["early_visual", "aud_early", "ddmn_mpfc", "bilateral_hipp"]
AUDITORY = ROIS.index("aud_early")
SHEET = "Sherlock_Segments_1000_NN_2017.xlsx"


@pytest.fixture(scope="module")
def stores(real, tmp_path_factory):
    """Stores built from NIfTIs of 4 x 1 x 1 x 1,976, one for each of 17 subjects."""
    folder = tmp_path_factory.mktemp("rois")
    with np.load(real / "sherlock/roi_timeseries.npz") as archive:
        series = np.stack([archive[name] for name in ROIS])  # (ROI, time, subject)
    for subject in range(series.shape[2]):
        data = series[:, :, subject].reshape(len(ROIS), 1, 1, -1).astype("f4")
        image = nib.Nifti1Image(data, np.diag([3.0, 3.0, 3.0, 1.0]))
        image.header.set_zooms((3, 3, 3, 1.5))
        nib.save(image, folder / f"roi_s{subject + 1}.nii.gz")
    shutil.copy(real / "sherlock" / SHEET, folder)
    entry = {
        "bold": "roi_s{subject}.nii.gz",
        "repetition_time_s": 1.5,
        "space": "native",
        "subjects": 17,
        "runs": [{"name": "run-1", "volumes": 946}, {"name": "run-2", "volumes": 1030}],
        "repeats": [{"volumes": 26, "at": {"run-1": 0, "run-2": 0}}],
        "annotations": SHEET,
    }
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"datasets": {"rois": entry}}))
    catalog = load_catalog(folder / "catalog.yaml")
    build(
        resolve("rois", catalog.dataset("rois"), folder),
        catalog,
        folder / "stores",
        ["voxels", "annotations"],
    )
    return folder / "stores" / "rois"


@pytest.fixture(scope="module", params=["none", "mean"], ids=["each-subject", "mean-of-subjects"])
def evaluation(request, stores, tmp_path_factory):
    """Folder of an evaluated run; 49 labels and 4 ROIs need a twentieth of the entry's width."""
    options = {
        "stimulus": ["annotations"],
        "subject": request.param,
        "width": 0.05,
        "steps": 200,
        "learning_rate": 3e-4,
    }
    out = tmp_path_factory.mktemp("run") / "dense"
    fit(configure("dense-voxels", stores, options=options), out)
    evaluate.evaluate(load(out))
    return out, {"none": 0.3, "mean": 0.5}[request.param]


def test_the_stores_hold_the_series_and_know_the_bad_tail(stores):
    voxels = sd.open(stores / "voxels.zarr")
    assert dict(voxels.sizes)["time"] == 1976
    valid = voxels.valid.sel(subject="sub-05").values
    assert np.flatnonzero(~valid).tolist() == list(range(1925, 1976))
    assert sd.open(stores / "annotations.zarr").attrs["segments_dropped"] == 2


def test_the_tail_of_subject_5_is_never_a_sample(stores):
    data = load_data(configure("dense-voxels", stores, options={"stimulus": ["annotations"]}))
    fifth = list(data.subjects).index("sub-05")
    for side in ("train", "validation", "test"):
        samples = data.samples(side)
        assert not (samples.tr[samples.subject == fifth] >= 1925).any()


def test_the_model_is_as_good_as_delayed_ridge_in_early_auditory_cortex(evaluation):
    folder, at_least = evaluation
    arrays = evaluate.load_evaluation(folder)[1]
    names = [str(name) for name in arrays.predictor.values]
    r = arrays.r.values
    model, ridge = (r[names.index(name), AUDITORY] for name in ("model", "delayed-ridge"))
    assert ridge > at_least
    assert model > ridge - 0.1, f"model {model:.2f}, ridge {ridge:.2f}"


def test_the_time_index_knows_nothing_of_held_out_blocks(evaluation):
    document = json.loads((evaluation[0] / "evaluation.json").read_text())
    assert abs(document["canary"]["block"]) < 0.1
    assert document["canary"]["random"] > 0.5
