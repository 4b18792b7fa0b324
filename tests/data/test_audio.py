"""The sound of a TR comes from its own samples, in units that mean something."""

from __future__ import annotations

import librosa
import numpy as np
import pytest

from sherlock_data.stimulus.audio import FLOOR_DB, SoundSpectra, centres_hz, tr_samples
from sherlock_data.stimulus.movie import probe

RATE = 8000
EDGES = np.arange(5) * 1.5


@pytest.fixture(scope="module")
def spectra() -> SoundSpectra:
    return SoundSpectra(RATE, RATE / 2, bands=20, mfcc=40, mel=64, samples=12000)


def tone(hz: float, amplitude: float = 1.0, seconds: float = 1.5) -> np.ndarray:
    seconds_of = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * hz * seconds_of)).astype(np.float32)[None]


def test_shapes_and_types(spectra):
    found = spectra.of(np.concatenate([tone(440), tone(880)]))
    assert {name: (v.shape, v.dtype) for name, v in found.items()} == {
        "audio_bands": ((2, 20), np.float32),
        "audio_mfcc": ((2, 40), np.float32),
        "audio_mel": ((2, 64), np.float32),
    }


@pytest.mark.parametrize("hz", [200, 440, 1000, 2500])
def test_a_tone_is_loudest_in_the_band_around_it(spectra, hz):
    bands = spectra.of(tone(hz))["audio_bands"][0]
    centres = centres_hz(20, RATE / 2)
    assert np.argmax(bands) == np.argmin(np.abs(centres - hz))


def test_bands_add_up_to_the_mean_square(spectra):
    """A sine of full scale has a mean square of 1/2: -3 dB."""
    power = 10 ** (spectra.of(tone(1000))["audio_bands"][0] / 10)
    assert 10 * np.log10(power.sum()) == pytest.approx(-3.01, abs=0.1)


def test_half_the_amplitude_is_six_decibel_less(spectra):
    loud, soft = (spectra.of(tone(1000, a))["audio_bands"][0] for a in (1.0, 0.5))
    np.testing.assert_allclose((loud - soft)[loud > -60], 6.02, atol=0.01)


def test_silence_is_the_floor(spectra):
    assert np.all(spectra.of(np.zeros((1, 12000), np.float32))["audio_bands"] == FLOOR_DB)


def test_mfcc_are_librosas(spectra):
    """Reference: librosa from end to end, with peak-1 filters and our scale of power."""
    sound = np.random.default_rng(0).normal(0, 0.1, (1, 12000)).astype(np.float32)
    window = spectra.window
    power = librosa.feature.melspectrogram(
        y=sound, sr=RATE, n_fft=window, hop_length=window // 4, n_mels=128, norm=None,
        pad_mode="reflect",
    )  # fmt: skip
    power = power * 2 / (window * np.sum(np.hanning(window + 1)[:-1] ** 2))
    mels = librosa.power_to_db(power, amin=1e-10, top_db=None)
    expected = librosa.feature.mfcc(S=mels, n_mfcc=40).mean(axis=-1)
    np.testing.assert_allclose(spectra.of(sound)["audio_mfcc"], expected, atol=1e-3)


def test_every_sample_counts_the_same(spectra):
    """The first milliseconds of a TR weigh as much as its middle."""
    early, middle = np.zeros((2, 1, 12000), np.float32)
    noise = np.random.default_rng(0).normal(0, 0.1, 400)
    early[0, :400], middle[0, 6000:6400] = noise, noise
    bands = [10 ** (spectra.of(s)["audio_bands"][0] / 10) for s in (early, middle)]
    assert bands[0].sum() == pytest.approx(bands[1].sum(), rel=0.15)


@pytest.mark.parametrize("tr", [0, 1, 3])
def test_a_burst_in_one_tr_changes_that_tr_alone(make_movie, spectra, tr):
    """Bursts fill the TR from its first to its last sample."""
    first, last = EDGES[tr], EDGES[tr + 1] - 0.5 / RATE

    def of(path):
        return [spectra.of(s)["audio_bands"] for _, s in tr_samples(probe(path), EDGES, 1)]

    gate = f"between(t,{first},{last})"
    quiet = of(make_movie("quiet.mkv", sound=f"aevalsrc='0.01*sin(2000*t)':s={RATE}"))
    burst = of(
        make_movie(
            "burst.mkv", sound=f"aevalsrc='0.01*sin(2000*t)+0.5*{gate}*sin(5000*t)':s={RATE}"
        )
    )
    changed = [bool(np.any(a != b)) for a, b in zip(quiet, burst, strict=True)]
    assert changed == [i == tr for i in range(4)]


def test_samples_are_those_of_the_trs_seconds(make_movie):
    """Sound whose value is its own time; a run that begins within the movie."""
    movie = probe(make_movie(sound=f"aevalsrc='t/10':s={RATE}"))
    for tr, samples in tr_samples(movie, 0.8 + np.arange(4) * 1.25, 1):
        first = 0.8 + tr * 1.25
        np.testing.assert_allclose(samples[0] * 10, first + np.arange(10000) / RATE, atol=1e-5)


def test_what_the_movie_does_not_sound_is_silence(make_movie):
    movie = probe(make_movie(seconds=2, sound=f"aevalsrc=0.5:s={RATE}"))
    heard = np.concatenate([s for _, s in tr_samples(movie, np.array([-0.5, 1.0, 2.5]), 1)], axis=1)
    assert heard.shape == (1, 3 * RATE)
    assert np.flatnonzero(heard[0])[[0, -1]].tolist() == [0.5 * RATE, 2.5 * RATE - 1]


def test_two_channels_stay_apart(make_movie, spectra):
    movie = probe(make_movie(sound=f"aevalsrc='0.5*sin(2000*t)|0':s={RATE}"))
    _, samples = next(tr_samples(movie, EDGES, 2))
    bands = spectra.of(samples)["audio_bands"]
    assert bands[0].max() > -10
    assert np.all(bands[1] == FLOOR_DB)
