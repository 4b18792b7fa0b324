"""Make a subject's BOLD and write it as a scanner's file, volume block by volume block.

Legend: n = volumes of a block, V = brain voxels, P = parcels, F = tracks; z, y, x = grid axes in
the order a NIfTI file stores them (x fastest).

A voxel is baseline + gain * (signal of its parcel + noise of its own). The parcel's signal, the
same in all its voxels, is the shared answer to the movie, the subject's own answer to the same
kind of tracks, and the subject's own AR(1) course; the voxel's noise is AR(1) in time and Gaussian
smooth in space. Only the noise is smoothed, so that no signal leaks into a null parcel. The shares
are set for the parcel's mean: the variance of its mean of smooth noise is computed exactly, and the
subject's own course fills the mean up to a variance of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from isal import igzip
from numpy.typing import NDArray
from scipy.stats import zscore

from sherlock_data.synthetic.geometry import Geometry
from sherlock_data.synthetic.tracks import AUDIO_TRACKS, TRACKS, VIDEO_TRACKS, RunTracks, ar1
from sherlock_data.synthetic.truth import Plan
from sherlock_data.timing import Clock

FloatArray = NDArray[np.float64]
Block = NDArray[np.float32]

#: mm
NOISE_FWHM_MM = 6.0
#: correlation of the noise with itself one TR later
NOISE_AR = 0.5
#: share of the variance the group does not share that is the subject's own answer to the tracks
OWN_SHARE = 0.1
#: largest share of the same that smooth voxel noise may take of a parcel's mean
NOISE_SHARE = 0.7
#: raw units: baseline in the brain, how far it varies, one standard deviation of a parcel's mean
BASELINE = 700.0
BASELINE_SD = 50.0
BASELINE_FWHM_MM = 30.0
GAIN = (8.0, 14.0)
#: raw units of one stored step; a power of two, so that scaling is exact
SLOPE = 0.125
#: volumes made and packed at once
BLOCK = 16


@dataclass(frozen=True)
class Smoother:
    """Gaussian smoothing along each axis, as matrices whose rows have norm 1.

    White noise of variance 1 comes out with variance 1 in every voxel, at the edges too.
    """

    z: Block
    y: Block
    x: Block

    def __call__(self, volumes: Block) -> Block:
        """Smooth volumes of shape (n, z, y, x)."""
        n, nz, ny, nx = volumes.shape
        along_x = volumes @ self.x.T
        along_y = np.matmul(self.y, along_x)
        return np.asarray(np.matmul(self.z, along_y.reshape(n, nz, ny * nx)).reshape(n, nz, ny, nx))

    def mean_variance(self, weights: Block) -> FloatArray:
        """Variance of weighted sums of smoothed white noise, exactly; weights (n, z, y, x)."""
        back = Smoother(*(np.ascontiguousarray(matrix.T) for matrix in (self.z, self.y, self.x)))
        return np.asarray(np.square(back(weights), dtype=np.float64).sum(axis=(1, 2, 3)))


def make_smoother(shape_zyx: tuple[int, ...], voxel_mm: float, fwhm_mm: float) -> Smoother:
    """Smoother of a Gaussian of ``fwhm_mm`` on a grid of ``voxel_mm``."""
    sigma = fwhm_mm / voxel_mm / np.sqrt(8 * np.log(2))
    matrices = []
    for length in shape_zyx:
        at = np.arange(length)
        kernel = np.exp(-0.5 * ((at[:, None] - at) / sigma) ** 2)
        kernel /= np.linalg.norm(kernel, axis=1, keepdims=True)
        matrices.append(kernel.astype(np.float32))
    return Smoother(*matrices)


@dataclass(frozen=True)
class Brain:
    """What all subjects have in common.

    Attributes
    ----------
    mask : ndarray of bool, shape (z, y, x)
    parcel : ndarray of int64, shape (V,)
        0-based parcel of every brain voxel, P where it has none.
    smoother : Smoother
    noise_scale, noise_variance : ndarray of float64, shape (P,)
        Factor of the voxels' noise, and the variance of the parcel's mean of it.
    """

    geometry: Geometry
    clock: Clock
    plan: Plan
    tracks: list[RunTracks]
    mask: NDArray[np.bool_]
    parcel: NDArray[np.int64]
    smoother: Smoother
    noise_scale: FloatArray
    noise_variance: FloatArray

    @property
    def voxel_mm(self) -> float:
        """Edge of a voxel in mm."""
        return float(self.geometry.affine[0, 0])


def make_brain(geometry: Geometry, clock: Clock, plan: Plan, tracks: list[RunTracks]) -> Brain:
    """Prepare what every subject's file needs."""
    mask = np.ascontiguousarray(geometry.brain.T)
    labels = np.ascontiguousarray(geometry.labels.T)
    smoother = make_smoother(mask.shape, float(geometry.affine[0, 0]), NOISE_FWHM_MM)
    variance = np.empty(len(plan.modality))
    for parcel in range(len(variance)):
        member = (labels == parcel + 1).astype(np.float32)[None]
        variance[parcel] = smoother.mean_variance(member / member.sum())[0]
    scale = np.minimum(1.0, np.sqrt(NOISE_SHARE * (1 - plan.pairwise) / variance))
    voxel_parcel = np.where(labels > 0, labels - 1, len(variance))[mask].astype(np.int64)
    return Brain(
        geometry, clock, plan, tracks, mask, voxel_parcel, smoother, scale, variance * scale**2
    )


def parcel_signal(brain: Brain, rng: np.random.Generator) -> Block:
    """One subject's signal of every parcel, shape (time, P), float32.

    In standard deviations of the parcel's mean. The first TRs of a run, up to the lag, answer to
    nothing: the movie has not begun.
    """
    plan, clock = brain.plan, brain.clock
    lag = clock.lag_in_trs(plan.lag_s)
    lagged = np.concatenate(
        [np.pad(run.per_tr, ((lag, 0), (0, 0)))[: run.run.volumes] for run in brain.tracks]
    )
    unshared = 1 - plan.pairwise
    own = np.where(plan.pairwise > 0, OWN_SHARE * unshared, 0.0)
    rest = unshared - own - brain.noise_variance
    weight = plan.direction * np.sqrt(plan.pairwise)[:, None]
    weight += _own_direction(plan, rng) * np.sqrt(own)[:, None]
    course = [
        zscore(ar1(rng.standard_normal((run.volumes, len(own))), NOISE_AR)) for run in clock.runs
    ]
    signal = lagged @ weight.T + np.concatenate(course) * np.sqrt(rest)
    return np.asarray(signal, dtype=np.float32)


def _own_direction(plan: Plan, rng: np.random.Generator) -> FloatArray:
    """Weights of a parcel's kind of tracks, at right angles to the shared ones; shape (P, F)."""
    video = np.isin(TRACKS, VIDEO_TRACKS)
    audio = np.isin(TRACKS, AUDIO_TRACKS)
    kind = np.array(plan.modality, dtype=object)
    heard = np.isin(kind, ["audio", "both"])[:, None] & audio
    seen = np.isin(kind, ["video", "both"])[:, None] & video
    own = rng.standard_normal(plan.direction.shape) * (heard | seen)
    own -= plan.direction * (own * plan.direction).sum(axis=1, keepdims=True)
    norm = np.linalg.norm(own, axis=1, keepdims=True)
    return np.asarray(np.divide(own, norm, out=np.zeros_like(own), where=norm > 0))


def bold_blocks(brain: Brain, subject: int, seed: int) -> Iterator[NDArray[np.int16]]:
    """Yield one subject's volumes in stored steps (raw units over ``SLOPE``).

    Parameters
    ----------
    brain : Brain
    subject : int
        1-based.
    seed : int

    Yields
    ------
    ndarray of int16, shape (n, z, y, x)
        0 outside the brain and nowhere inside.
    """
    rng = np.random.default_rng([seed, 2, subject])
    signal = parcel_signal(brain, rng)
    # voxels outside the parcels: noise alone
    signal = np.pad(signal, ((0, 0), (0, 1)))
    scale = np.append(brain.noise_scale, 1.0).astype(np.float32)[brain.parcel]
    wide = make_smoother(brain.mask.shape, brain.voxel_mm, BASELINE_FWHM_MM)
    field = wide(rng.standard_normal((1, *brain.mask.shape), dtype=np.float32))[0][brain.mask]
    baseline = BASELINE + BASELINE_SD * np.clip(field, -4, 4)
    for run in brain.clock.runs:
        start = brain.clock.run_offsets[run.name]
        # every run is its own scan: another receiver gain, another baseline
        gain = np.float32(rng.uniform(*GAIN))
        level = baseline * np.float32(rng.uniform(0.95, 1.05))
        done = start
        for noise in _noise_blocks(brain, run.volumes, rng):
            now = signal[done : done + len(noise)][:, brain.parcel]
            done += len(noise)
            volumes = np.zeros((len(noise), *brain.mask.shape), dtype="<i2")
            volumes[:, brain.mask] = np.rint((level + gain * (now + scale * noise)) / SLOPE)
            yield volumes


def _noise_blocks(brain: Brain, volumes: int, rng: np.random.Generator) -> Iterator[Block]:
    """Yield noise of variance 1, AR(1) in time and smooth in space, of shape (n, V)."""
    keep, fresh = np.float32(NOISE_AR), np.float32(np.sqrt(1 - NOISE_AR**2))
    state: Block | None = None
    for first in range(0, volumes, BLOCK):
        count = min(BLOCK, volumes - first)
        white = rng.standard_normal((count, *brain.mask.shape), dtype=np.float32)
        noise = brain.smoother(white)[:, brain.mask]
        for now in noise:
            now[:] = now if state is None else keep * state + fresh * now
            state = now
        yield noise


def write_bold(
    path: Path,
    brain: Brain,
    subject: int,
    seed: int,
    *,
    constant_tail: int = 0,
    header_tr_s: float | None = None,
    report: Callable[[float], None] = lambda share: None,
) -> None:
    """Write one subject's runs, concatenated, as ``.nii.gz``.

    Parameters
    ----------
    path : Path
    brain : Brain
    subject : int
        1-based.
    seed : int
    constant_tail : int
        The last so many volumes are copies of one.
    header_tr_s : float, optional
        TR that the header claims; the true one by default.
    report : callable
        Told the share that is done.
    """
    total = brain.clock.volumes
    frozen: NDArray[np.int16] | None = None
    done = 0
    with path.open("wb") as file, igzip.IGzipFile("", "wb", 1, file, mtime=0) as packed:
        packed.write(_header(brain, header_tr_s))
        for volumes in bold_blocks(brain, subject, seed):
            tail = max(0, min(len(volumes), done + len(volumes) - (total - constant_tail)))
            if tail:
                frozen = volumes[-tail].copy() if frozen is None else frozen
                volumes[-tail:] = frozen
            packed.write(volumes.tobytes())
            done += len(volumes)
            report(done / total)


def _header(brain: Brain, header_tr_s: float | None) -> bytes:
    tr_s = brain.clock.repetition_time_s if header_tr_s is None else header_tr_s
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((*brain.mask.shape[::-1], brain.clock.volumes))
    header.set_zooms((brain.voxel_mm,) * 3 + (tr_s,))
    header.set_xyzt_units("mm", "sec")
    header.set_sform(brain.geometry.affine, code="mni")
    header.set_qform(brain.geometry.affine, code="mni")
    header.set_slope_inter(SLOPE, 0.0)
    header["descrip"] = b"synthetic, Sherlock Zoo"
    header["magic"] = b"n+1"
    header.set_data_offset(352)
    return bytes(header.binaryblock) + bytes(4)
