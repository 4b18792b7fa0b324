"""The features store: each TR's mean of what a network said of the movie then, and of nothing else.

The networks here are the smallest that `transformers` saves; their numbers are known in advance.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from sherlock_data import store as stores
from sherlock_data.build import Options, build
from sherlock_data.catalog import load_catalog
from sherlock_data.errors import CatalogError, InputError, StoreError, UnavailableError
from sherlock_data.scan import resolve
from sherlock_data.stimulus.movie import probe
from sherlock_data.stimulus.sampling import TrMean, sampled_frames, sound_patches

RESNET = {"source": "transformers", "modality": "image", "model": "lab/tiny", "features": 3}


@pytest.fixture
def movies(dataset, series):
    """Runs of 12 and 8 TRs of 0.5 s; the second has no movie."""
    dataset.write("s1.nii.gz", series[0])
    dataset.entry["repetition_time_s"] = 0.5
    dataset.entry["runs"] = [
        {"name": "run-1", "volumes": 12, "movie": "one.mkv"},
        {"name": "run-2", "volumes": 8},
    ]
    return dataset


@pytest.fixture
def grey_network(movies, make_movie):
    """weights/grey: a ResNet whose features are the picture's mean grey, 0 to 255."""
    transformers = pytest.importorskip("transformers", reason="needs sherlock-zoo[features]")
    import torch

    make_movie().rename(movies.raw / "one.mkv")
    config = transformers.ResNetConfig(
        embedding_size=3, hidden_sizes=[3], depths=[1], layer_type="basic", hidden_act="relu"
    )
    model = transformers.ResNetModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.zero_()
            if name.endswith("embedder.embedder.convolution.weight"):
                parameter[[0, 1, 2], [0, 1, 2], 3, 3] = 1.0  # a channel is its colour
            elif "embedder.embedder.normalization.weight" in name or "shortcut" in name:
                parameter.fill_(1.0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.0
    folder = movies.raw / "weights" / "grey"
    model.save_pretrained(folder)
    transformers.ConvNextImageProcessorPil(
        size={"shortest_edge": 384}, do_normalize=False, rescale_factor=1.0
    ).save_pretrained(folder)
    movies.stores["features"] = {"kind": "features", "extractors": ["grey"]}
    movies.extractors["grey"] = RESNET
    return movies


def test_a_network_sees_each_tr(grey_network):
    """Frame n is grey of level n: a TR of 0.5 s holds 12.5 of them."""
    grey_network.extractors["grey"] = {**RESNET, "layer": 0, "frames_per_s": 25}
    store = grey_network.build("features")
    assert store.grey.dims == ("time", "grey_feature")
    expected = 12.5 * np.arange(12) + 5.75
    np.testing.assert_allclose(store.grey.values[:12, 0], expected, rtol=1e-3, atol=0.01)
    assert np.isnan(store.grey.values[12:]).all()
    assert store.has_grey.values.tolist() == [True] * 12 + [False] * 8
    assert store.has_stimulus.values.tolist() == [True] * 12 + [False] * 8


def test_a_variable_says_where_it_comes_from(grey_network):
    grey_network.extractors["grey"] = {**RESNET, "layer": 0, "frames_per_s": 4}
    store = grey_network.build("features")
    attrs = store.grey.attrs
    assert (attrs["model"], attrs["layer"], attrs["sampling_rate_hz"]) == ("lab/tiny", 0, 4.0)
    hashes = {item["name"]: item["sha256"] for item in store.attrs["inputs"]}
    assert set(hashes) == {"grey/model.safetensors", "one.mkv"}
    assert attrs["weights_sha256"] == hashes["grey/model.safetensors"]
    settings = store.attrs["recipe"]["settings"]["grey"]
    assert (settings["frames_per_s"], "weights" in settings) == (4.0, False)
    json.dumps(store.attrs)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"frames_per_s": 5}, id="other sampling"),
        pytest.param({"normalise": True}, id="other vectors"),
    ],
)
def test_another_extractor_is_another_store(grey_network, change):
    grey_network.build("features")
    grey_network.build("features")
    grey_network.extractors["grey"] = {**RESNET, **change}
    with pytest.raises(StoreError, match=r"another recipe \(settings"):
        grey_network.build("features")


def test_a_network_of_another_size_writes_no_store(grey_network):
    grey_network.extractors["grey"] = {**RESNET, "features": 4}
    with pytest.raises(InputError, match=r"gives \(3,\) features, the catalogue says 4"):
        grey_network.build("features")
    assert stores.state(grey_network.path("features")) != "complete"


def test_missing_weights_leave_nothing_behind(movies, make_movie, monkeypatch):
    pytest.importorskip("transformers", reason="needs sherlock-zoo[features]")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(movies.out))
    make_movie().rename(movies.raw / "one.mkv")
    with pytest.raises(UnavailableError, match="hf download microsoft/resnet-50 --local-dir"):
        movies.build("features")
    assert not movies.out.exists()


def test_sound_is_heard_tr_by_tr(movies, make_movie, monkeypatch):
    """A network that says how loud it is, on a sound that is louder every half second."""
    from sherlock_data.stimulus import pretrained

    def loudness(name, entry, weights):
        read = lambda samples: torch.from_numpy(np.sqrt(2 * np.mean(samples**2, axis=1)))[:, None]  # noqa: E731
        return pretrained.Network(name, 1, read, sample_rate=1000, window=100, hop=100)

    torch = pytest.importorskip("torch")
    monkeypatch.setattr(pretrained, "load", loudness)
    rising = "aevalsrc='0.05*floor(2*t)*sin(440*2*PI*t)':s=8000"
    make_movie(sound=rising, seconds=5).rename(movies.raw / "one.mkv")
    (movies.raw / "ear.pth").write_bytes(b"weights")
    movies.extractors["ear"] = {
        "source": "vggish", "model": "ear", "features": 1, "weights": "ear.pth",
    }  # fmt: skip
    movies.stores["features"] = {"kind": "features", "extractors": ["ear"]}
    store = movies.build("features")
    np.testing.assert_allclose(store.ear.values[:10, 0], 0.05 * np.arange(10), atol=5e-3)
    assert store.has_ear.values.tolist() == [True] * 10 + [False] * 10
    assert [p["code"] for p in store.attrs["problems"]] == ["movie-shorter"]


def test_a_silent_movie_has_no_features_of_sound(movies, make_movie):
    make_movie(sound=None).rename(movies.raw / "one.mkv")
    (movies.raw / "ear.pth").write_bytes(b"weights")
    movies.extractors["ear"] = {
        "source": "vggish", "model": "ear", "features": 1, "weights": "ear.pth",
    }  # fmt: skip
    movies.stores["features"] = {"kind": "features", "extractors": ["ear"]}
    with pytest.raises(UnavailableError, match="no movie has sound"):
        movies.build("features")


def test_texts_count_by_the_seconds_of_their_segments(movies):
    """Two segments share TR 0 one to three; a segment without text counts for nothing."""
    transformers = pytest.importorskip("transformers", reason="needs sherlock-zoo[features]")
    folder = movies.raw / "weights" / "words"
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "rain", "sun"]
    (folder / "vocab.txt").write_text("\n".join(words))
    config = transformers.BertConfig(
        vocab_size=6, hidden_size=4, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=4,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    tokens = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    tokens.save_pretrained(folder)
    sheet = pd.DataFrame(
        {
            "onset": [0.0, 0.125, 0.5, 1.0],
            "duration": [0.125, 0.375, 0.5, 0.5],
            "Scene Details - A Level ": ["rain", "sun", "", "rain"],
        }
    )
    sheet.to_csv(movies.raw / "words.csv", index=False)
    movies.entry |= {"annotations": "words.csv", "runs": [{"name": "run-1", "volumes": 20}]}
    movies.extractors["words"] = {
        "source": "transformers", "modality": "text", "model": "lab/words", "features": 4,
    }  # fmt: skip
    movies.stores["features"] = {"kind": "features", "extractors": ["words"]}
    store = movies.build("features")
    assert store.has_words.values.tolist() == [True, False, True] + [False] * 17
    rain = store.words.values[2]
    from sherlock_data.extractors import ExtractorEntry
    from sherlock_data.stimulus import pretrained
    from sherlock_data.stimulus.weights import locate

    given = ExtractorEntry(**movies.extractors["words"])
    network = pretrained.load("words", given, locate("words", given, movies.raw))
    np.testing.assert_allclose(network(["rain"])[0], rain, atol=1e-6)
    mixed = 0.25 * rain + 0.75 * network(["sun"])[0]
    np.testing.assert_allclose(store.words.values[0], mixed, atol=1e-6)


@pytest.mark.parametrize(
    ("rate", "starts"),
    [
        pytest.param(2.0, np.arange(12) / 2, id="two a second"),
        pytest.param(0.8, np.arange(5) / 0.8, id="steps that do not fit"),
        pytest.param(25.0, np.arange(150) / 25, id="every frame"),
        pytest.param(1000.0, np.arange(150) / 25, id="more than every frame"),
    ],
)
def test_sampled_frames_leave_no_gap(make_movie, rate, starts):
    pieces = list(sampled_frames(probe(make_movie()), rate, 0.0, 6.0))
    np.testing.assert_allclose([p.start_s for p in pieces], starts, atol=1e-6)
    np.testing.assert_allclose([p.end_s for p in pieces], [*starts[1:], 6.0], atol=1e-6)
    middle = np.array([(p.start_s + p.end_s) / 2 for p in pieces[:-1]])
    shown = np.array([p.values.mean() for p in pieces[:-1]])
    np.testing.assert_allclose(shown, np.floor(middle * 25 + 1e-6), atol=1.01)


def test_patches_of_sound_are_the_resampled_sound(make_movie):
    """A patch of 16 kHz for every second; the last one is filled up with silence."""
    movie = probe(make_movie(seconds=2.4))
    pieces = list(sound_patches(movie, 16_000, 16_400, 16_000, 0.0, 10.0))
    assert [(p.start_s, p.end_s) for p in pieces] == [(0, 1), (1, 2), (2, 2.4)]
    seconds = np.arange(16_400) / 16_000
    # ffmpeg's sine has an amplitude of an eighth
    expected = np.sin(2 * np.pi * 440 * (seconds + 1)) / 8
    np.testing.assert_allclose(pieces[1].values[:8000], expected[:8000], atol=2e-3)
    np.testing.assert_array_equal(pieces[0].values[16_000:], pieces[1].values[:400])
    assert np.all(pieces[2].values[6_500:] == 0)


def test_the_mean_over_a_tr_does_not_depend_on_batches():
    rng = np.random.default_rng(0)
    edges = np.arange(5) * 1.5
    cuts = np.sort(np.r_[0, rng.uniform(0, 7, 30), 7])
    values = rng.normal(size=(31, 3)).astype(np.float32)
    one, many = TrMean(edges, 3), TrMean(edges, 3)
    one.add(cuts[:-1], cuts[1:], values)
    for i in range(31):
        many.add(cuts[i : i + 1], cuts[i + 1 : i + 2], values[i : i + 1])
    np.testing.assert_allclose(one.mean(1.5)[0], many.mean(1.5)[0], rtol=1e-6)
    fine = (np.arange(1500) + 0.5) / 1000  # the mean of TR 0 by brute force
    which = np.searchsorted(cuts, fine, side="right") - 1
    np.testing.assert_allclose(one.mean(1.5)[0][0], values[which].mean(axis=0), atol=5e-3)


def test_an_array_named_by_the_dataset_alone(movies):
    values = np.random.default_rng(0).normal(size=(12, 2))
    np.save(movies.raw / "mine.npy", values)
    clock = {"repetition_time_s": 0.5, "runs": [{"run": "run-1", "volumes": 12}], "units": "dB"}
    (movies.raw / "mine.json").write_text(json.dumps(clock))
    movies.entry["stores"] = {"features": {"extractors": [], "files": {"mine": "mine.npy"}}}
    store = movies.build("features")
    np.testing.assert_allclose(store.mine.values[:12], values, rtol=1e-6)
    assert np.isnan(store.mine.values[12:]).all()
    assert store.mine.attrs["units"] == "dB"
    movies.build("features")  # up to date
    np.save(movies.raw / "mine.npy", values + 1)
    with pytest.raises(StoreError, match="another"):
        movies.build("features")


def test_the_planted_tracks_of_a_synthetic_dataset(tiny_raw, tmp_path):
    catalog = load_catalog(tiny_raw / "catalog.yaml")
    scan = resolve("synth", catalog.dataset("synth"), tiny_raw)
    outcomes = build(scan, catalog, tmp_path, ["features"], Options(workers=1))
    assert [outcome.status for outcome in outcomes] == ["built"]
    store = stores.open_store(tmp_path / "synth" / "features.zarr")
    np.testing.assert_array_equal(store.planted.values, np.load(tiny_raw / "features.npy"))
    assert store.planted_feature.values[0] == "brightness_left"
    assert store.has_stimulus.all()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param({**RESNET, "poolng": "mean"}, "did you mean 'pooling'", id="unknown key"),
        pytest.param({**RESNET, "source": "timm"}, "source", id="unknown source"),
        pytest.param({**RESNET, "window_s": 1}, "`window_s` says nothing", id="other modality"),
        pytest.param({"source": "vggish", "features": 128}, "needs `model`", id="no model"),
        pytest.param({"source": "array", "features": 3}, "`features` says nothing", id="array"),
        pytest.param({**RESNET, "layer": 1, "pooling": "pooler"}, "not a layer", id="layer"),
        pytest.param(
            {"source": "vggish", "modality": "image", "model": "v", "features": 128},
            "vggish reads audio", id="vggish sees nothing",
        ),
    ],
)  # fmt: skip
def test_an_extractor_that_cannot_be(movies, row, message):
    movies.extractors["grey"] = row
    with pytest.raises(CatalogError, match=message):
        movies.catalog()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param({"extractors": ["resnet5"]}, "did you mean 'resnet50'", id="unknown name"),
        pytest.param({"extractors": ["vggish", "vggish"]}, "named twice", id="twice"),
        pytest.param({"files": {"time": "a.npy"}}, "cannot name a variable", id="reserved"),
    ],
)
def test_a_recipe_that_cannot_be(movies, keys, message):
    movies.entry["stores"] = {"features": keys}
    with pytest.raises(CatalogError, match=message):
        movies.catalog()


def test_an_overlay_gives_weights_relative_to_itself(movies):
    movies.extractors["vggish"] = {
        "source": "vggish", "model": "vggish", "features": 128, "weights": "w/vggish.pth",
    }  # fmt: skip
    catalog = movies.catalog()
    assert catalog.extractor("vggish").weights == movies.raw / "w" / "vggish.pth"
    assert catalog.extractor("resnet50").features == 2048
