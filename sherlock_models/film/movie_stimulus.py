"""Any movie file, TR by TR, as the stores of a run hold their movies.

Legend: H, W = height and width of the run's pictures, F = features of a vector stimulus. The same
code averages frames and takes spectra as when the stores were built; sizes and filter banks are
those of the run's own stimulus store.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sherlock_data import store
from sherlock_data.errors import ConfigError, InputError, StoreError
from sherlock_data.stimulus.audio import SoundSpectra, tr_samples
from sherlock_data.stimulus.movie import MovieProbe
from sherlock_data.stimulus.video import is_covered, tr_pictures
from sherlock_data.timing import FloatArray
from sherlock_models.feeding.stimuli import ALIASES

if TYPE_CHECKING:
    from sherlock_models.run import Run

#: stimuli that a movie file alone gives
SPECTRA = ("audio_bands", "audio_mfcc", "audio_mel")
#: one TR's stimuli by name, raw: (3, H, W) uint8 or (F,) float32
Values = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class KnownMovie:
    """A movie of the run's own stores.

    Attributes
    ----------
    run : str
        Run of the scan in which it was shown.
    start_s : float
        Movie seconds at the run's first volume.
    """

    run: str
    start_s: float


@dataclass(frozen=True)
class Extraction:
    """How a run's stimuli were taken from its movies.

    Attributes
    ----------
    names : tuple of str
        Stimuli of the run.
    tr_s : float
        Seconds of a TR.
    width, height : int
        Pixels of `video`.
    channels : int
        Of the sound; 0 without.
    top_hz : float
        Upper end of the filter banks.
    bands, mfcc, mel : int
    shown : dict of KnownMovie
        Movies of the store by their sha256.
    """

    names: tuple[str, ...]
    tr_s: float
    width: int
    height: int
    channels: int
    top_hz: float
    bands: int
    mfcc: int
    mel: int
    shown: dict[str, KnownMovie]

    @classmethod
    def of(cls, run: Run) -> Extraction:
        """Read it from the metadata of the run's stimulus store.

        Raises
        ------
        ConfigError
            If the run sees anything that is not taken from a movie file alone.
        StoreError
            If the store does not say how its movies were read.
        """
        names = run.config.stimulus
        for name in names:
            if name != "video" and ALIASES.get(name, name) not in SPECTRA:
                raise ConfigError(
                    f"the run's stimulus '{name}' is not taken from a movie file by decode",
                    where=run.path,
                    remedy="decode a measured brain (--bold SUBJECT), or train an entry on video "
                    "and audio",
                )
        path = f"{run.config.data.rstrip('/')}/stimulus.zarr"
        data = store.open_store(path)
        movies: dict[str, Any] = data.attrs.get("movies", {})
        if not movies:
            raise StoreError(
                "does not say which movies it was made from", where=path, remedy="build it anew"
            )
        starts = {one["name"]: one.get("movie_start_s", 0.0) for one in data.attrs.get("runs", [])}
        sizes = data.sizes
        return cls(
            names=names,
            tr_s=float(data.attrs["repetition_time_s"]),
            width=sizes["width"],
            height=sizes["height"],
            channels=sizes.get("channel", 0),
            top_hz=min(movie["sample_rate"] for movie in movies.values()) / 2,
            bands=sizes.get("band", 0),
            mfcc=sizes.get("coefficient", 0),
            mel=sizes.get("mel", 0),
            shown={m["sha256"]: KnownMovie(r, float(starts.get(r, 0))) for r, m in movies.items()},
        )

    @property
    def hears(self) -> bool:
        """Whether the run needs sound."""
        return any(name != "video" for name in self.names)

    def check(self, movie: MovieProbe) -> None:
        """Refuse a movie that lacks what the run needs.

        Raises
        ------
        InputError
            If it has no sound, or none as high as the run hears.
        """
        if not self.hears:
            return
        if not movie.has_audio:
            raise InputError(
                "it has no sound, and the run hears", where=movie.path, remedy="add a sound track"
            )
        if movie.sample_rate / 2 < self.top_hz:
            rate = round(2 * self.top_hz)
            raise InputError(
                f"its sound ends at {movie.sample_rate / 2:g} Hz, the run hears up to "
                f"{self.top_hz:g} Hz",
                where=movie.path,
                remedy=f"re-encode it (ffmpeg -i IN -ar {rate} OUT.mp4); what is above stays "
                "silent",
            )


def stimuli_of(
    movie: MovieProbe, edges: FloatArray, how: Extraction
) -> Generator[Values | None, None, None]:
    """Yield every TR's stimuli in order, None where the movie does not cover it.

    Parameters
    ----------
    movie : MovieProbe
    edges : ndarray of float64, shape (TR + 1,)
        Movie seconds.
    how : Extraction

    Raises
    ------
    InputError
        If the movie does not decode.
    """
    with (
        closing(tr_pictures(movie, edges, how.width, how.height)) as pictures,
        closing(_sound(movie, edges, how)) as sounds,
    ):
        shown = next(pictures, None)
        for tr, heard in enumerate(sounds):
            while shown is not None and shown.tr < tr:
                shown = next(pictures, None)
            seen = shown is not None and shown.tr == tr
            if shown is None or not seen or not _covered(shown.covered_s, movie, how):
                yield None
                continue
            yield {name: _value(name, shown.picture, heard) for name in how.names}


def _covered(covered_s: float, movie: MovieProbe, how: Extraction) -> bool:
    return is_covered(covered_s, how.tr_s, movie.frame_rate)


def _value(name: str, picture: NDArray[np.uint8], heard: dict[str, Any]) -> NDArray[Any]:
    if name == "video":
        return np.ascontiguousarray(picture.transpose(2, 0, 1))
    return np.asarray(heard[ALIASES.get(name, name)], dtype=np.float32).reshape(-1)


def _sound(
    movie: MovieProbe, edges: FloatArray, how: Extraction
) -> Generator[dict[str, NDArray[np.float32]], None, None]:
    """Spectra of every TR; a movie with fewer channels is heard on both sides alike."""
    if not how.hears:
        yield from ({} for _ in edges[1:])
        return
    samples = int(how.tr_s * movie.sample_rate)
    spectra = SoundSpectra(movie.sample_rate, how.top_hz, how.bands, how.mfcc, how.mel, samples)
    channels = min(how.channels, movie.channels)
    with closing(tr_samples(movie, edges, channels)) as heard:
        for _, values in heard:
            found = spectra.of(values)
            if channels < how.channels:
                found = {n: np.repeat(v[:1], how.channels, axis=0) for n, v in found.items()}
            yield found
