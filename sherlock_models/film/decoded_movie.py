"""Write what a run decodes as a film: of any movie, or of a measured brain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sherlock_data import store
from sherlock_data.errors import ConfigError, InputError, or_beside
from sherlock_data.stimulus.movie import MovieProbe, check_decodes, probe
from sherlock_models.film.decode import (
    MeasuredBrain,
    MovieBrain,
    Teller,
    find_subject,
    movie_edges,
)
from sherlock_models.film.movie_stimulus import Extraction
from sherlock_models.film.panels import Film, picture_and_sound
from sherlock_models.film.reel import Cost, CountedTrs, Reel, Silent, Watcher, write_reel
from sherlock_models.film.stills import Stills
from sherlock_models.lesions.replaced_unit import ReplacedUnit
from sherlock_models.writing import whole

if TYPE_CHECKING:
    from sherlock_models.run import Run

#: ends of a difference's colours, grey levels and standard deviations of sound: between two whole
#: pictures, and for what one unit of many changes
WHOLE_ENDS, PART_ENDS = (50.0, 2.5), (15.0, 0.5)


def decode(
    run: Run,
    out: Path,
    movie: Path | None = None,
    *,
    subject: str | None = None,
    bold: str | None = None,
    lesion: str | None = None,
    isolate: str | None = None,
    replace: str = "zero",
    stills: Path | None = None,
    at: Sequence[float] = (),
    overwrite: bool = False,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Write a film of what a run decodes.

    Parameters
    ----------
    run : Run
        Its best checkpoint.
    out : Path
        The mp4 file.
    movie : Path, optional
        Any movie; with ``bold`` one of the movies of the scan.
    subject : str, optional
        Whose brain to predict; only where the run knows the subjects apart.
    bold : str, optional
        Read this subject's measured brain instead of predicting one.
    lesion, isolate : str, optional
        Unit to replace, or to leave alone; at most one of the two.
    replace : {"zero", "mean"}
        By what, as :class:`sherlock_models.lesions.replaced_unit.ReplacedUnit` has it.
    stills : Path, optional
        PNG file for a strip of stills.
    at : sequence of float
        Film seconds of the stills; by default spread over what is held out, or over all.
    overwrite : bool
        Whether files of these names may be replaced.
    watcher : Watcher, optional

    Returns
    -------
    dict
        ``film``, ``bytes``, ``seconds``, ``frames``, ``frame_rate``, ``trs``, ``decoded_trs``,
        ``held_out_trs`` and, where asked for, ``stills``.

    Raises
    ------
    ConfigError
        If the options exclude one another, a unit or a subject is unknown, a file is in the way,
        or the run's stimulus is not taken from a movie.
    InputError
        If the movie cannot be read or lacks what the run needs, or a film cannot be written.
    """
    _check_options(run, movie, subject, bold, lesion, isolate)
    if out.suffix.lower() != ".mp4":
        raise ConfigError("not the name of an mp4 file", where=out, remedy="end it in .mp4")
    for path in filter(None, (out, stills)):
        check_free(path, overwrite, movie)
    probed = None if movie is None else probe(movie)
    if probed is not None:
        check_decodes(probed)
    unit = _unit(run, lesion, isolate, replace, "predicted" if bold is None else "measured")
    reel = make_reel(run, probed, subject, bold, unit)
    strip = None if stills is None else Stills(reel.film, tuple(at))
    told = CountedTrs(reel.brain, strip)
    watcher = watcher or Silent()
    watcher.started(Cost(reel.seconds, reel.trs, reel.frames, reel.film.size, reel.rate))
    with whole(out) as temporary:
        write_reel(reel, told, temporary, out, run.config.entry, watcher)
        if strip is not None and stills is not None:
            with whole(stills) as beside:
                strip.write(beside)
    return {
        "film": str(out),
        "bytes": out.stat().st_size,
        "seconds": reel.frames / float(reel.rate),
        "frames": reel.frames,
        "frame_rate": str(reel.rate),
        "trs": reel.trs,
        "decoded_trs": told.decoded,
        "held_out_trs": told.held_out,
        **({} if stills is None else {"stills": str(stills)}),
    }


def make_reel(
    run: Run,
    movie: MovieProbe | None,
    subject: str | None,
    bold: str | None,
    unit: ReplacedUnit | None,
) -> Reel:
    """Choose what is decoded and how it is shown; nothing is decoded yet."""
    teller, how = Teller(run, unit), None
    if movie is not None:
        how = Extraction.of(run)
        how.check(movie)
    if bold is not None:
        brain: MovieBrain | MeasuredBrain = (measured := _measured(teller, movie, how, bold))
        trs, tr_s = len(measured.trs), run.data.clock.repetition_time_s
        seconds = trs * tr_s if movie is None else movie.video_seconds
    elif movie is not None and how is not None:
        brain = MovieBrain(teller, movie, how, subject)
        trs, tr_s, seconds = len(movie_edges(movie, how)) - 1, how.tr_s, movie.video_seconds
    else:
        raise ConfigError("no movie and no brain", where="MOVIE", remedy="name a movie, or --bold")
    film = _film(run, movie, bold, unit, tr_s)
    return Reel(brain, film, movie, trs, seconds)


def _measured(
    teller: Teller, movie: MovieProbe | None, how: Extraction | None, bold: str
) -> MeasuredBrain:
    find_subject(teller.run.data, bold)
    if movie is None or how is None:
        return MeasuredBrain(teller, bold)
    known = how.shown.get(movie.sha256)
    if known is None:
        raise InputError(
            "nobody was scanned with this movie: it is none of the run's own",
            where=movie.path,
            remedy=f"leave it out, or name the movie of {', '.join(sorted(_runs(how)))}",
        )
    return MeasuredBrain(teller, bold, known.run, known.start_s)


def _runs(how: Extraction) -> set[str]:
    return {known.run for known in how.shown.values()}


def _film(
    run: Run, movie: MovieProbe | None, bold: str | None, unit: ReplacedUnit | None, tr_s: float
) -> Film:
    sizes = run.model.sizes.stimulus
    picture, sound = picture_and_sound(sizes)
    source = "the predicted brain" if bold is None else f"{bold}'s measured brain"
    titles, after, ends = ["original", f"decoded from {source}"], "decoded", WHOLE_ENDS
    if unit is not None:
        name = Path(unit.name).name
        titles.append(_changed(name, unit.mode, unit.replacing.replace))
        after, ends = ("lesioned", PART_ENDS) if unit.mode == "lesion" else ("alone", WHOLE_ENDS)
    before = "original" if unit is None else "decoded"
    difference = f"{after} - {before}, \u00b1{ends[0]:g} grey levels"
    aspect = 16 / 9
    if movie is not None:
        aspect = movie.width / movie.height
    elif picture is not None:
        aspect = sizes[picture][1] / sizes[picture][0]
    return Film(titles, difference, aspect, picture, sound, _channels(run, sound), tr_s, *ends)


def _changed(name: str, mode: str, replace: str) -> str:
    """Title of what is decoded with a unit replaced, or it alone left."""
    if mode == "isolate":
        return f"{name} alone" + (", the rest at its mean" if replace == "mean" else "")
    return f"{name} at its mean" if replace == "mean" else f"without {name}"


def _channels(run: Run, sound: str | None) -> int:
    """Channels of a sound; 1 of any other vector."""
    if sound is None or not sound.startswith("audio"):
        return 1
    data = store.open_store(f"{run.config.data.rstrip('/')}/stimulus.zarr")
    return int(data.sizes.get("channel", 1))


def _check_options(
    run: Run,
    movie: Path | None,
    subject: str | None,
    bold: str | None,
    lesion: str | None,
    isolate: str | None,
) -> None:
    if lesion is not None and isolate is not None:
        raise ConfigError("both are named", where="--lesion, --isolate", remedy="name one")
    if bold is not None and subject is not None:
        raise ConfigError("both are named", where="--bold, --subject", remedy="name one")
    if movie is None and bold is None:
        raise ConfigError("no movie and no brain", where="MOVIE", remedy="name a movie, or --bold")
    if run.config.is_compressor:
        raise ConfigError(
            "a compressor decodes a brain, not a movie",
            where=run.path,
            remedy="decode the stage-2 run that reads its code",
        )
    if subject is not None and run.config.subject != "embedding":
        raise ConfigError(
            f"the run predicts one brain for everybody (subject={run.config.subject})",
            where="--subject",
            remedy="leave it out, or train with --set subject=embedding",
        )


def _unit(
    run: Run, lesion: str | None, isolate: str | None, replace: str, brain: str
) -> ReplacedUnit | None:
    name, mode = (lesion, "lesion") if lesion is not None else (isolate, "isolate")
    return None if name is None else ReplacedUnit.of(run, name, mode, replace, brain)


def check_free(path: Path, overwrite: bool, source: Path | None = None) -> None:
    """Refuse a file that is in the way, or a folder that is not there.

    Raises
    ------
    ConfigError
    """
    if not path.parent.is_dir():
        raise ConfigError(
            "no such folder", where=path.parent, remedy=or_beside(path.parent, "make it first")
        )
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise ConfigError("is the movie itself", where=path, remedy="name another file")
    if path.is_dir() or (path.exists() and not overwrite):
        remedy = "name a file" if path.is_dir() else "name another file, or add --overwrite"
        raise ConfigError("is there already", where=path, remedy=remedy)
