"""A run to hand on: its best weights in one file, what else the model needs, and a model card.

The folder opens as a run does (`sherlock_models.load`): its model and its units are there. What led
to it (metrics, checkpoints, moments) is not.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sherlock_data.errors import ConfigError
from sherlock_data.version import __version__
from sherlock_models import run_card
from sherlock_models.run import CONFIG, FITTED, WEIGHTS
from sherlock_models.writing import whole

if TYPE_CHECKING:
    from torch import nn

    from sherlock_models.run import Run

CARD = "README.md"

_TEXT = """---
library_name: sherlock-zoo
tags: [fmri, autoencoder, movie, neuroscience]
---

# {title}

An autoencoder movie -> brain -> movie whose middle layer is the brain.

{facts}
{scores}

## To use it

```python
import sherlock_models as sm

run = sm.load("{folder}")
run.model       # from {stimulus} of a TR to the brain, and back
run.normaliser  # the units that it sees
```

`{config}` holds all that decided its training; `{fitted}` what was fitted on training TRs beside
the weights. Beside the stores that it was trained on, every command takes the folder as it takes a
run: `sherlock-models decode {folder} movie.mp4 out.mp4` sends a movie through it.

## For, and not for

It tells which regions carry which part of *this* movie. It does not read minds: shown another
movie, or another movie's brain, it has no reason to be right. It says nothing of single people, or
of health.
"""


def export(run: Run, out: Path) -> Path:
    """Write the best model of a run into a folder of its own.

    `model.safetensors` (weights by the names of the model's `state_dict`), `fitted.safetensors`,
    `config.yaml`, `evaluation.json` where the run was evaluated, and `README.md`, a model card
    (Mitchell et al. 2019, FAT*).

    Parameters
    ----------
    run : Run
    out : Path
        A new folder.

    Raises
    ------
    ConfigError
        If something is there already, or the folder that is to hold it is not.
    CheckpointError
        If the run has no checkpoint yet, or a damaged one.
    """
    from safetensors.torch import save_file

    if out.exists() or out.is_symlink():
        raise ConfigError("is there already", where=out, remedy="name a new folder")
    if not out.parent.is_dir():
        raise ConfigError("no such folder", where=out.parent, remedy="make it first")
    card = model_card(run, out.name)
    weights = {name: value.contiguous() for name, value in run.model.state_dict().items()}
    with whole(out) as folder:
        folder.mkdir()
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        shutil.copyfile(run.path / FITTED, folder / FITTED)
        run.config.save(folder / CONFIG)
        if (run.path / run_card.EVALUATION).is_file():
            shutil.copyfile(run.path / run_card.EVALUATION, folder / run_card.EVALUATION)
        (folder / CARD).write_text(card, encoding="utf-8")
    return out


def read_weights(path: Path, model: nn.Module) -> None:
    """Read `model.safetensors` into a model.

    Raises
    ------
    CheckpointError
        If it is damaged, or another model's.
    """
    from safetensors.torch import load_model

    from sherlock_models.training.checkpoint import FAILURES, CheckpointError

    try:
        load_model(model, path, strict=True)
    except (*FAILURES, RuntimeError) as error:
        raise CheckpointError(
            f"cannot be read as this model ({str(error).splitlines()[0]})",
            where=path,
            remedy=f"restore it, and the {CONFIG} beside it",
        ) from error


def model_card(run: Run, folder: str) -> str:
    """Say in Markdown what a run's model is, how good it is, and what it is for."""
    dataset = run_card.name_of(run.config.data)  # where it lay is nobody's business
    facts = {**run_card.facts(run), "dataset": dataset, "written by": f"sherlock-zoo {__version__}"}
    del facts["on disk"]
    return _TEXT.format(
        title=_cell(f"{run.config.entry}, trained on {dataset}"),
        facts=_table(("", ""), [*facts.items()]),
        scores=_scores(run),
        folder=folder,
        stimulus=" and ".join(run.config.stimulus),
        config=CONFIG,
        fitted=FITTED,
    )


def _scores(run: Run) -> str:
    found = run_card.scores(run)
    if found is None:
        return "It was not evaluated: `sherlock-models evaluate` does that."
    note, rows = found
    return f"## Scores\n\n{_table((note, *run_card.SCORES.values()), rows)}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Return a text that no name in it can break out of its cell."""
    plain = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in plain)
