"""`sherlock-models decode`: any movie through the brain and back, as a film."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from sherlock_cli import completion, console, options
from sherlock_cli.progress import Bar

from sherlock_data.errors import ConfigError

if TYPE_CHECKING:
    from sherlock_models.film.reel import Cost

_file = click.Path(path_type=Path)


class _Watch(Bar):
    """Says what will be written, then how far it is."""

    def started(self, cost: Cost) -> None:
        """Print what it takes before anything is decoded."""
        width, height = cost.size
        console.say(
            f"{console.seconds(cost.seconds)} of film: {cost.trs:,} TRs to decode, "
            f"{cost.frames:,} frames of {width} x {height} at {float(cost.frame_rate):g} a second",
        )
        self.begin(cost.frames)


def _replacement(context: click.Context, option: click.Parameter, value: str) -> str:
    """Refuse a shuffle, which `lesion` knows, with the reason."""
    if value == "shuffle":
        raise click.BadParameter(
            "a film is decoded as it comes: another TR's value is not known yet; say zero or mean, "
            "or sherlock-models lesion --replace shuffle"
        )
    return str(click.Choice(["zero", "mean"]).convert(value, option, context))


@click.command()
@options.run
@click.argument("files", nargs=-1, required=True, type=_file, metavar="[MOVIE] OUT.mp4")
@click.option(
    "--bold",
    metavar="SUBJECT",
    shell_complete=completion.subjects,
    help="Read SUBJECT's measured brain instead of a predicted one.",
)
@options.subject("Whose brain to predict, of a run with --set subject=embedding.")
@click.option(
    "--lesion",
    metavar="UNIT",
    shell_complete=completion.units,
    help="Also decode without UNIT: a parcel, a network, or a NIfTI image of a region.",
)
@click.option(
    "--isolate", metavar="UNIT", shell_complete=completion.units, help="Also decode UNIT alone."
)
@click.option(
    "--replace",
    metavar="zero|mean",
    default="zero",
    show_default=True,
    callback=_replacement,
    help="What is put in a unit's place: 0 of the standardised BOLD (its mean), or the training "
    "mean of the brain that is read.",
)
@click.option(
    "--stills", type=_file, metavar="OUT.png", help="Also draw stills of the film side by side."
)
@click.option(
    "--at",
    metavar="SECONDS",
    help="Seconds of the film to draw, as 12,30.5.  [default: evenly over it]",
)
@click.option("--overwrite", is_flag=True, help="Replace files of these names.")
@options.as_json(
    "film, bytes, sha256, seconds, frames, frame_rate, trs, decoded_trs, held_out_trs, stills"
)
@console.handled
@console.stoppable()
def decode(
    run: Path,
    files: tuple[Path, ...],
    bold: str | None,
    subject: str | None,
    lesion: str | None,
    isolate: str | None,
    replace: str,
    stills: Path | None,
    at: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Send a movie through RUN's brain layer and back, as a film.

    \b
      original | decoded | without UNIT, or UNIT alone | difference

    One picture is decoded per TR and held for it. The sound you hear is the movie's own: what is
    decoded of it is one spectrum per TR, which cannot be turned back into speech, and is shown as a
    running spectrogram under the pictures. TRs of the run's own movies are marked as held out or
    trained on; only what is held out says anything about the model.

    \b
    Examples:
      sherlock-models decode runs/conv movie.mp4 out.mp4 --lesion Vis
      sherlock-models decode runs/conv movie.mp4 out.mp4 --isolate v1.nii.gz
      sherlock-models decode runs/conv movie.mp4 out.mp4 --stills out.png --at 30
      sherlock-models decode runs/conv --bold sub-01 out.mp4
      sherlock-models decode runs/conv --bold sub-01 movie.mp4 out.mp4
    """  # noqa: D301 - click's mark for text that keeps its lines
    if len(files) > 2 or (len(files) == 1 and bold is None):
        wanted = "MOVIE OUT.mp4, or --bold SUBJECT OUT.mp4"
        raise click.UsageError(f"name two files: {wanted}" if len(files) < 2 else f"only {wanted}")
    if replace != "zero" and lesion is None and isolate is None:
        raise click.UsageError("--replace says by what a unit is replaced: name one, --lesion UNIT")
    from sherlock_data.provenance import sha256_of
    from sherlock_models.film import decoded_movie
    from sherlock_models.run import load

    with _Watch("writing") as watch:
        document = decoded_movie.decode(
            load(run),
            files[-1],
            files[0] if len(files) == 2 else None,
            subject=subject,
            bold=bold,
            lesion=lesion,
            isolate=isolate,
            replace=replace,
            stills=stills,
            at=_seconds(at),
            overwrite=overwrite,
            watcher=watch,
        )
    if as_json:
        sha256 = sha256_of(Path(document["film"]))
        console.print_json({**document, "sha256": sha256, "stills": stills})
        return
    held = f", {document['held_out_trs']} of them held out" if document["held_out_trs"] else ""
    console.tell(
        f"{document['film']} ({console.size(document['bytes'])}): {document['decoded_trs']} of "
        f"{document['trs']} TRs decoded{held}"
    )
    if stills is not None:
        console.tell(f"stills: {stills}")


def _seconds(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ConfigError(
            f"'{text}' is no list of seconds", where="--at", remedy="write 12,30.5"
        ) from None
