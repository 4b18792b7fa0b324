"""Trainings that cannot be: their folder, entry, settings, split, data, ranks, compressor."""

from __future__ import annotations

from pathlib import Path

from tests.corpus.case import Case, nothing, table
from tests.corpus.damage import written

RUN = "runs/toy"
TRAIN = "sherlock-train toy --data stores/lab --catalog raw/catalog.yaml --out runs/new --steps 1"


def setting(text: str) -> str:
    """Type a training with one more setting."""
    return f"{TRAIN} --set {text}"


CASES = [
    Case(
        "out-is-there",
        nothing,
        TRAIN.replace("runs/new", RUN),
        RUN + ": is there already and not empty",
    ),
    Case(
        "out-is-a-file",
        written("runs/new", "x"),
        TRAIN,
        "runs/new ... : is there already and not empty; go on with --resume",
    ),
    Case(
        "unknown-entry",
        nothing,
        TRAIN.replace("train toy", "train tor"),
        "no zoo entry 'tor' in the catalogue; did you mean 'toy'?",
    ),
    Case(
        "unknown-setting",
        nothing,
        setting("wdith=1"),
        "--set: unknown key 'wdith'; did you mean 'width'?",
    ),
    Case(
        "setting-without-a-value",
        nothing,
        setting("width="),
        "--set: 'width=' is no setting; write --set key=value",
    ),
    Case(
        "setting-that-is-resolved", nothing, setting("data=elsewhere"), "--set: unknown key 'data'"
    ),
    Case(
        "setting-whole-and-by-member",
        nothing,
        setting("weights=1 --set weights.brain=2"),
        "--set: 'weights' is given whole and by member",
    ),
    Case(
        "setting-by-member-and-whole",
        nothing,
        setting("weights.brain=2 --set weights=1"),
        "--set: 'weights' is given whole and by member",
    ),
    Case("width-in-words", nothing, setting("width=wide"), "--set: width: ... (found 'wide')"),
    Case("width-of-nothing", nothing, setting("width=0"), "--set: width: ... (found 0)"),
    Case("rate-of-nan", nothing, setting("learning_rate=.nan"), "--set: learning_rate: "),
    Case(
        "rate-of-infinity",
        nothing,
        setting("learning_rate=.inf"),
        "--set: learning_rate: ... finite",
    ),
    Case(
        "weight-of-nan", nothing, setting("weights.brain=.nan"), "--set: weights.brain: ... finite"
    ),
    Case(
        "weight-below-zero",
        nothing,
        setting("weights.brain=-1"),
        "--set: weights: a weight below 0 would reward errors",
    ),
    Case(
        "weight-of-no-term",
        nothing,
        setting("weights.smell=1"),
        "no loss term 'smell' ... ; known: audio, brain, video",
    ),
    Case(
        "epochs-without-end",
        nothing,
        TRAIN.replace("--steps 1", "--epochs inf"),
        "epochs ... : Input should be a finite number (found inf); correct this key",
    ),
    Case(
        "epochs-of-nan",
        nothing,
        TRAIN.replace("--steps 1", "--epochs nan"),
        "epochs ... : Input should be a finite number (found nan); correct this key",
    ),
    Case(
        "delays-of-the-future",
        nothing,
        setting("delays=-1"),
        "--set: delays: delays are TRs of the past",
    ),
    Case(
        "delays-beyond-the-run",
        nothing,
        setting("delays=0..59"),
        "--split block: no TR left for validation and test ... a shorter temporal context",
    ),
    Case("fold-that-is-none", nothing, TRAIN + " --fold 9", "folds are 0 to ... 4"),
    Case(
        "stimulus-that-is-none",
        nothing,
        setting("stimulus=smell"),
        "smell ... ': no built store has it; known: ",
    ),
    Case(
        "brain-that-is-none",
        nothing,
        setting("brain=parcel"),
        "stores/lab: no complete store 'parcel' (built: annotations",
    ),
    Case(
        "components-fitted-on-what-is-held-out",
        nothing,
        setting("brain=pca") + " --fold 1",
        "pca ... .zarr: was fitted on ... train with",
    ),
    Case(
        "more-gpus-than-there-are",
        nothing,
        TRAIN + " --gpus 64",
        "64 asked for ... ; ask for fewer",
    ),
    Case(
        "compressor-that-is-none",
        nothing,
        setting("compressor=runs/gone"),
        "runs/gone ... : no config.yaml there; name a folder",
    ),
    Case(
        "compressor-that-sees-a-film",
        nothing,
        setting("compressor=runs/toy"),
        "runs/toy ... , which compresses no brain; name a run of brain-compressor",
    ),
    Case(
        "data-on-a-bucket-that-cannot-be",
        nothing,
        TRAIN.replace("stores/lab", "nope://lab"),
        "nope://: nothing here opens such an address; known: abfs, gs, s3",
    ),
]


@table(CASES)
def test_a_bad_setting_is_one_line_and_nothing_is_written(case: Case, desk: Path) -> None:
    case.check(desk)
