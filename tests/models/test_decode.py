"""Films of what a run decodes: the right pictures, at the right times, with the movie's sound."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from sherlock_data.errors import ConfigError, InputError, SherlockError
from sherlock_data.stimulus.movie import probe
from sherlock_models.film.decode import HELD_OUT, TRAINED, MeasuredBrain, MovieBrain, Teller, ToldTr
from sherlock_models.film.decoded_movie import decode
from sherlock_models.film.movie_stimulus import Extraction
from sherlock_models.film.panels import Film, clock, fitted, font
from sherlock_models.film.stills import STILLS, Stills
from sherlock_models.lesions.lesion import lesioned
from sherlock_models.lesions.replaced_unit import ReplacedUnit
from sherlock_models.resolve import resolve
from sherlock_models.run import Run, load
from sherlock_models.scoring import heldout
from sherlock_models.scoring.heldout import Reader, Side
from sherlock_models.training.train import fit

av = pytest.importorskip("av")

H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")
#: seconds at which the flash and the beep begin and end
FLASH = (6.0, 6.5)


@pytest.fixture(scope="module")
def run(judged: Path) -> Run:
    return load(judged)


@pytest.fixture(scope="module")
def delayed(tiny_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that sees the TRs one and two before, and knows the subjects apart."""
    options = {"steps": 2, "batch_size": 8, "width": 0.02, "validate_every": 2, "delays": (1, 2)}
    config = resolve("conv-parcels", tiny_stores, options={**options, "subject": "embedding"})
    return fit(config, tmp_path_factory.mktemp("runs") / "delayed", device="cpu")


@pytest.fixture
def flash(tmp_path: Path) -> Callable[..., Path]:
    """A movie that is black and silent but for a flash and a beep at ``FLASH``."""

    def make(
        name: str = "flash.mp4",
        rate: str = "25",
        seconds: float = 9,
        sound_start_s: float = 0,
        frames: str = "null",
        sound_rate: int = 44100,
    ) -> Path:
        begin, end = FLASH
        lit = f"nullsrc=s=64x36:r={rate}:d={seconds},format=gray,"
        lit += f"geq=lum='if(between(T,{begin},{end}-0.001),235,16)',{frames}"
        on = f"between(t,{begin - sound_start_s},{end - sound_start_s})"
        beep = f"aevalsrc='if({on},0.5*sin(2*PI*880*t),0)':s={sound_rate}"
        beep += f":d={seconds - sound_start_s}"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-loglevel", "error"]
        command += ["-f", "lavfi", "-i", lit]
        command += ["-itsoffset", str(sound_start_s), "-f", "lavfi", "-i", beep]
        path = tmp_path / name
        subprocess.run(
            [*command, "-fps_mode", "passthrough", *H264, f"file:{path}"],
            check=True,
            capture_output=True,
        )
        return path

    return make


def streams(path: Path) -> dict[str, Any]:
    """Every frame's time and brightness of the original, and the sound as one row."""
    with av.open(str(path)) as movie:
        video, sound = movie.streams.video[0], movie.streams.audio
        found: dict[str, Any] = {
            "rate": video.average_rate,
            "size": (video.width, video.height),
            "seconds": float(movie.duration / av.time_base),
            "sounds": len(sound),
        }
        frames = [(f.time, f.to_ndarray(format="gray")) for f in movie.decode(video)]
    found["times"] = np.array([time for time, _ in frames])
    found["frames"] = [picture for _, picture in frames]
    if found["sounds"]:
        with av.open(str(path)) as movie:
            blocks = [(f.time, f.to_ndarray()) for f in movie.decode(movie.streams.audio[0])]
            found["sampling"] = movie.streams.audio[0].rate
            found["sound_start_s"] = blocks[0][0]
            found["sound"] = np.concatenate([block[0] for _, block in blocks])
    return found


class TestFile:
    @pytest.mark.parametrize(
        "options",
        [
            pytest.param({}, id="mp4, 25 fps"),
            pytest.param({"name": "-flash.mkv", "rate": "30000/1001"}, id="mkv, NTSC, a dash"),
            pytest.param({"name": "late.mkv", "sound_start_s": 2}, id="sound starts late"),
            pytest.param(
                {"name": "vfr.mkv", "frames": "select='if(lt(t,3),1,not(mod(n,5)))'"},
                id="variable rate",
            ),
        ],
    )
    def test_flash_and_beep_stay_together(
        self, run: Run, flash: Callable[..., Path], tmp_path: Path, options: dict[str, Any]
    ) -> None:
        movie = flash(**options)
        out = tmp_path / "-out.mp4"
        summary = decode(run, out, movie)
        found = streams(out)
        known = probe(movie)
        assert found["seconds"] == pytest.approx(known.duration_s, abs=0.06)
        assert found["rate"] == known.frame_rate == Fraction(summary["frame_rate"])
        assert len(found["frames"]) == summary["frames"]
        panel = [picture[60:180, 100:240].mean() for picture in found["frames"]]
        lit = found["times"][np.array(panel) > 128]
        loud = np.flatnonzero(np.abs(found["sound"]) > 0.1) / found["sampling"]
        loud += found["sound_start_s"]
        frame_s = 1 / float(known.frame_rate)
        # the flash begins and ends with a frame; the beep's ends are blurred by a window of AAC
        assert lit[0] == pytest.approx(FLASH[0], abs=2.5 * frame_s)
        assert lit[-1] + frame_s == pytest.approx(FLASH[1], abs=2.5 * frame_s)
        assert loud[0] == pytest.approx(FLASH[0], abs=0.03)
        assert loud[-1] == pytest.approx(FLASH[1], abs=0.03)

    @pytest.mark.slow
    def test_a_silent_measured_film_is_as_long_as_the_scan(self, run: Run, tmp_path: Path) -> None:
        summary = decode(run, tmp_path / "bold.mp4", bold="sub-01", lesion="SynA")
        found = streams(tmp_path / "bold.mp4")
        clock_ = run.data.clock
        assert summary["trs"] == clock_.volumes
        assert found["seconds"] == pytest.approx(clock_.volumes * clock_.repetition_time_s, abs=0.1)
        assert found["sounds"] == 0
        assert summary["held_out_trs"] == len(run.data.split.test)

    def test_a_measured_brain_beside_its_own_movie(
        self, run: Run, tiny_raw: Path, tmp_path: Path
    ) -> None:
        summary = decode(run, tmp_path / "bold.mp4", tiny_raw / "run-2.mp4", bold="sub-02")
        assert summary["trs"] == run.data.clock.run("run-2").volumes
        assert streams(tmp_path / "bold.mp4")["sounds"] == 1

    def test_stills_show_every_column(
        self, run: Run, flash: Callable[..., Path], tmp_path: Path
    ) -> None:
        strip, at = tmp_path / "strip.png", (1.0, 6.2, 8.0)
        summary = decode(run, tmp_path / "o.mp4", flash(), isolate="SynA", stills=strip, at=at)
        pixels = imread(strip)
        assert summary["stills"] == str(strip)
        assert pixels.shape[1] > 3 * 1.3 * 300
        assert pixels.std() > 0.1

    @pytest.mark.realdata
    def test_a_real_movie(self, run: Run, real: Path, tmp_path: Path) -> None:
        movie = real / "movie" / "big_buck_bunny_60s.mp4"
        if not movie.is_file():
            pytest.skip("no movie in the real data")
        summary = decode(run, tmp_path / "out.mp4", movie, stills=tmp_path / "out.png")
        found, known = streams(tmp_path / "out.mp4"), probe(movie)
        assert found["seconds"] == pytest.approx(known.duration_s, abs=0.06)
        assert len(found["frames"]) == round(known.video_seconds * known.frame_rate)
        assert summary["decoded_trs"] == summary["trs"]
        np.testing.assert_allclose(np.diff(found["times"]), 1 / float(known.frame_rate), atol=1e-3)
        with av.open(str(movie)) as original:
            sound = original.streams.audio[0]
            heard = np.concatenate([f.to_ndarray()[0] for f in original.decode(sound)])
            assert sound.rate == found["sampling"]
        count = min(len(heard), len(found["sound"]))
        assert _delay(heard[:count], found["sound"][:count]) / found["sampling"] < 0.005


def _delay(a: np.ndarray, b: np.ndarray) -> int:
    """Samples by which two sounds are most alike when shifted."""
    size = 2 * len(a)
    alike = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    at = int(np.argmax(alike))
    return min(at, size - at)


class TestWhatIsTold:
    def test_a_movie_of_the_stores_is_told_as_the_evaluation_tells_it(
        self, run: Run, tiny_raw: Path
    ) -> None:
        told = list(movie_brain(run, tiny_raw / "run-1.mp4"))
        test = Side.of(run.data, "test")
        reader = Reader(run, test)
        decoded = reader.decode(reader.predicted(0))
        levels = heldout.frames(run.data, "video", decoded["video"])
        offset = run.data.clock.run_slice("run-1").start
        compared = 0
        for row, tr in enumerate(test.of_subject(0)):
            if tr < run.data.clock.run_slice("run-1").stop:
                mine = told[tr - offset]
                assert mine.side == HELD_OUT
                assert mine.decoded is not None
                np.testing.assert_allclose(mine.decoded["video"], levels[row], atol=0.05)
                np.testing.assert_allclose(mine.decoded["audio"], decoded["audio"][row], atol=1e-3)
                compared += 1
        assert compared > 3

    def test_a_measured_brain_is_told_as_the_evaluation_tells_it(self, run: Run) -> None:
        told = {one.tr: one for one in MeasuredBrain(Teller(run), "sub-02")}
        test = Side.of(run.data, "test")
        trs = test.of_subject(1)
        decoded = Reader(run, test).decode(test.measured(1, trs))
        for row, tr in enumerate(trs.tolist()):
            found = told[tr].decoded
            assert found is not None
            np.testing.assert_allclose(found["audio"], decoded["audio"][row], atol=1e-5)

    @pytest.mark.parametrize("replace", ["zero", "mean"])
    @pytest.mark.parametrize("mode", ["lesion", "isolate"])
    def test_a_unit_is_replaced_as_lesions_replace_it(
        self, run: Run, tiny_raw: Path, mode: str, replace: str
    ) -> None:
        unit = ReplacedUnit.of(run, "SynA", mode, replace)
        told = list(movie_brain(run, tiny_raw / "run-1.mp4", unit))
        trs = [tr for tr in run.data.split.test.tolist() if tr < len(told) - 1][:3]
        expected = lesioned(run, "SynA", trs, mode=mode, replace=replace)["audio"]["lesioned"]
        for row, tr in enumerate(trs):
            found = told[tr].changed
            assert found is not None
            np.testing.assert_allclose(found["audio"], expected[row], atol=1e-3)

    def test_the_mean_is_of_the_brain_that_is_read(self, run: Run) -> None:
        trs = run.data.split.test[:3]
        read = torch.ones(len(trs), len(run.data.unit_names))
        unit = ReplacedUnit.of(run, "SynA", "lesion", "mean", "measured")
        train = Side.of(run.data, "train")
        mean = train.measured(1, train.of_subject(1)).mean(axis=0)
        changed = unit(read, 1, trs).numpy()
        inside = np.isin(np.arange(len(mean)), unit.index) & run.data.signal[1]
        np.testing.assert_allclose(changed[:, inside], np.tile(mean[inside], (3, 1)), atol=1e-6)
        np.testing.assert_array_equal(changed[:, ~np.isin(np.arange(len(mean)), unit.index)], 1)

    def test_a_shuffle_needs_the_whole_film(self, run: Run) -> None:
        with pytest.raises(ConfigError, match="not known yet"):
            ReplacedUnit.of(run, "SynA", "lesion", "shuffle")

    def test_delays_leave_the_first_trs_without_a_brain(self, delayed: Run, tiny_raw: Path) -> None:
        told = list(movie_brain(delayed, tiny_raw / "run-1.mp4", subject="sub-02"))
        assert [one.decoded is None for one in told[:4]] == [True, True, False, False]
        test = Side.of(delayed.data, "test")
        reader = Reader(delayed, test)
        decoded = reader.decode(reader.predicted(1))["audio"]
        for row, tr in enumerate(test.of_subject(1).tolist()):
            if tr < delayed.data.clock.run("run-1").volumes:
                found = told[tr].decoded
                assert found is not None
                np.testing.assert_allclose(found["audio"], decoded[row], atol=1e-3)

    def test_blocks_do_not_show(
        self, delayed: Run, tiny_raw: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = list(movie_brain(delayed, tiny_raw / "run-1.mp4"))
        monkeypatch.setattr("sherlock_models.film.decode.BLOCK_TRS", 1)
        pieces = list(movie_brain(delayed, tiny_raw / "run-1.mp4"))
        assert len(whole) == len(pieces)
        for one, other in zip(whole, pieces, strict=True):
            assert (one.decoded is None) == (other.decoded is None)
            if one.decoded is not None and other.decoded is not None:
                np.testing.assert_allclose(one.decoded["video"], other.decoded["video"], atol=1e-2)

    def test_only_the_runs_own_movies_have_a_side(
        self, run: Run, tiny_raw: Path, flash: Callable[..., Path]
    ) -> None:
        own = {
            one.side
            for name in ("run-1.mp4", "run-2.mp4")
            for one in movie_brain(run, tiny_raw / name)
        }
        assert {HELD_OUT, TRAINED} <= own
        assert {one.side for one in movie_brain(run, flash())} == {""}


def movie_brain(
    run: Run, movie: Path, unit: ReplacedUnit | None = None, subject: str | None = None
) -> MovieBrain:
    return MovieBrain(Teller(run, unit), probe(movie), Extraction.of(run), subject)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            pytest.param({"lesion": "SynZ"}, ConfigError, r"--lesion: no unit 'SynZ'", id="unit"),
            pytest.param(
                {"lesion": "SynA", "isolate": "SynB"}, ConfigError, "name one", id="both modes"
            ),
            pytest.param({"bold": "sub-99"}, ConfigError, "no subject 'sub-99'", id="subject"),
            pytest.param({"bold": "sub-01"}, InputError, "nobody was scanned", id="not its movie"),
            pytest.param(
                {"subject": "sub-01"}, ConfigError, "one brain for everybody", id="no embedding"
            ),
        ],
    )
    def test_one_line_and_nothing_written(
        self,
        run: Run,
        flash: Callable[..., Path],
        tmp_path: Path,
        options: dict[str, Any],
        error: type[SherlockError],
        message: str,
    ) -> None:
        movie = flash()
        with pytest.raises(error, match=message):
            decode(run, tmp_path / "out.mp4", movie, **options)
        assert [path.name for path in tmp_path.iterdir()] == [movie.name]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            pytest.param({"sound_rate": 8000}, "its sound ends at 4000 Hz", id="dull sound"),
        ],
    )
    def test_movies_that_lack_what_the_run_hears(
        self, run: Run, flash: Callable[..., Path], tmp_path: Path, options: Any, message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            decode(run, tmp_path / "out.mp4", flash(**options))

    def test_a_file_in_the_way_stays(self, run: Run, flash: Callable[..., Path]) -> None:
        movie = flash()
        before = movie.read_bytes()
        with pytest.raises(ConfigError, match="is the movie itself"):
            decode(run, movie, movie, overwrite=True)
        other = movie.with_name("other.mp4")
        other.write_bytes(b"mine")
        with pytest.raises(ConfigError, match="add --overwrite"):
            decode(run, other, movie)
        assert (movie.read_bytes(), other.read_bytes()) == (before, b"mine")

    def test_stimuli_that_no_movie_file_gives(self, run: Run, tmp_path: Path) -> None:
        copy = tmp_path / "run"
        copy.mkdir()
        run.config.model_copy(update={"stimulus": ("video", "annotations")}).save(
            copy / "config.yaml"
        )
        with pytest.raises(ConfigError, match="'annotations' is not taken from a movie file"):
            Extraction.of(load(copy))


class TestFilm:
    def test_the_difference_is_of_the_last_two(self) -> None:
        film = Film(["original", "decoded", "without A"], "difference", 2.0, "video", None, 1, 1.0)
        grey = {"video": np.full((4, 8, 3), 100, np.float32)}
        lighter = {"video": np.full((4, 8, 3), 200, np.float32)}
        sheet = film.frame(ToldTr(0, 0.0, 1.0, "", grey, grey, lighter))
        width, height = film.size
        assert sheet.shape == (height, width, 3)
        red, _, blue = sheet[60, -40].astype(int)
        assert red > blue + 50

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            pytest.param(0, "0:00.0", id="start"),
            pytest.param(59.96, "1:00.0", id="rounds up"),
            pytest.param(3661.5, "1:01:01.5", id="hour"),
        ],
    )
    def test_clock(self, seconds: float, text: str) -> None:
        assert clock(seconds) == text

    def test_long_names_are_cut_in_their_middle(self) -> None:
        text = fitted("without " + "x" * 200 + "_12", 300)
        assert font(14).getlength(text) <= 300
        assert text.startswith("without x")
        assert text.endswith("_12")

    def test_stills_spread_over_what_is_held_out(self) -> None:
        film = Film(["original", "decoded"], "difference", 2.0, "video", None, 1, 1.0)
        stills = Stills(film)
        empty: dict[str, np.ndarray] = {}
        for tr in range(1000):
            side = HELD_OUT if tr >= 500 else TRAINED
            stills.see(ToldTr(tr, float(tr), tr + 1.0, side, empty, empty))
        chosen = [told.tr for told in stills.chosen]
        assert len(chosen) == STILLS
        assert min(chosen) >= 500
        assert max(chosen) > 900
