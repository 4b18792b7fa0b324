"""What is typed wrongly: usage, exit code 2, and what no file can say, exit code 1."""

from __future__ import annotations

from pathlib import Path

from tests.corpus.case import USAGE, Case, nothing, table
from tests.corpus.damage import folder, written

DATA, MODELS, TRAIN = "sherlock-data", "sherlock-models", "sherlock-train"
BUILD = f"{DATA} build lab --catalog raw/catalog.yaml --out new"


def usage(name: str, command: str, says: str) -> Case:
    """Type what click refuses."""
    return Case(name, nothing, command, says, USAGE)


CASES = [
    usage("no-such-command", f"{DATA} biuld lab", "No such command 'biuld'"),
    usage("no-such-model-command", f"{MODELS} evalute runs/toy", "No such command 'evalute'"),
    usage("no-such-option", f"{BUILD} --overwrit", "No such option ... --overwrit"),
    usage("build-nothing", f"{DATA} build", "Missing argument 'DATASET'"),
    usage("inspect-nothing", f"{DATA} inspect", "Missing argument 'DATASET | FILE...'"),
    usage("verify-nothing", f"{DATA} verify", "Missing argument 'PATH...'"),
    usage("info-of-two", f"{DATA} info stores/lab stores/lab", "unexpected extra argument"),
    usage("export-to-nowhere", f"{DATA} export stores/lab/voxels.zarr", "Missing argument 'OUT'"),
    usage(
        "no-workers", f"{BUILD} --workers 0", "Invalid value for '--workers': 0 is not in the range"
    ),
    usage(
        "workers-in-words",
        f"{BUILD} --workers all",
        "Invalid value for '--workers': 'all' is not a valid integer",
    ),
    usage(
        "synth-of-no-size",
        f"{DATA} synth new --size huge",
        "Invalid value for '--size': 'huge' is not one of",
    ),
    usage(
        "synth-of-one",
        f"{DATA} synth new --subjects 1",
        "Invalid value for '--subjects': 1 is not in the range",
    ),
    usage("synth-of-no-tr", f"{DATA} synth new --header-tr 0", "Invalid value for '--header-tr'"),
    usage("train-nothing", TRAIN, "name an ENTRY and its --data, or a run to --resume"),
    usage("train-on-nothing", f"{TRAIN} toy", "name an ENTRY and its --data"),
    usage(
        "train-no-steps", f"{TRAIN} toy --data stores/lab --steps 0", "Invalid value for '--steps'"
    ),
    usage(
        "train-a-split-that-is-none",
        f"{TRAIN} toy --data stores/lab --split time",
        "Invalid value for '--split'",
    ),
    usage(
        "train-on-gpus-and-processes",
        f"{TRAIN} toy --data stores/lab --gpus 1 --processes 2",
        "--gpus and --processes exclude each other",
    ),
    usage(
        "train-in-half-precision",
        f"{TRAIN} toy --data stores/lab --precision fp16",
        "Invalid value for '--precision'",
    ),
    usage("resume-another-entry", f"{TRAIN} toy --resume runs/toy", "--resume takes all from RUN"),
    usage(
        "resume-another-width",
        f"{TRAIN} --resume runs/toy --set width=2",
        "--resume takes all from RUN",
    ),
    usage("show-nothing", f"{MODELS} show", "Missing argument 'RUN'"),
    usage(
        "lesion-of-another-mode",
        f"{MODELS} lesion runs/toy --mode cut",
        "Invalid value for '--mode'",
    ),
    usage(
        "lesion-by-another-value",
        f"{MODELS} lesion runs/toy --replace one",
        "Invalid value for '--replace'",
    ),
    usage(
        "lesion-of-another-brain",
        f"{MODELS} lesion runs/toy --brain mine",
        "Invalid value for '--brain'",
    ),
    usage("decode-nothing", f"{MODELS} decode runs/toy", "Missing argument '[MOVIE] OUT.mp4'"),
    usage(
        "decode-one-file", f"{MODELS} decode runs/toy raw/film.mp4", "name two files: MOVIE OUT.mp4"
    ),
    usage(
        "decode-three-files", f"{MODELS} decode runs/toy a.mp4 b.mp4 c.mp4", "only MOVIE OUT.mp4"
    ),
    usage("plan-no-gpus", f"{MODELS} plan toy --gpus 0", "Invalid value for '--gpus'"),
    usage("validate-no-seeds", f"{MODELS} validate --seeds 0", "Invalid value for '--seeds'"),
    Case(
        "unknown-dataset",
        nothing,
        BUILD.replace("build lab", "build lap"),
        "no dataset 'lap' in the catalogue; did you mean 'lab'?",
    ),
    Case(
        "inspect-unknown",
        nothing,
        f"{DATA} inspect lap --catalog raw/catalog.yaml",
        "no dataset 'lap' in the catalogue; did you mean 'lab'?",
    ),
    Case(
        "no-raw-folder", nothing, f"{BUILD} --raw nowhere", "nowhere: no such folder; check --raw"
    ),
    Case(
        "a-file-for-the-raw-folder",
        nothing,
        f"{BUILD} --raw raw/film.mp4",
        "raw/film.mp4: no such folder; check --raw",
    ),
    Case(
        "raw-of-another-dataset",
        folder("other"),
        f"{BUILD} --raw other",
        "other: no file matches 's{subject}.nii.gz'; the folder is empty: check --raw",
    ),
    Case("no-scheduler", nothing, f"{BUILD} --scheduler tcp://127.0.0.1:1", "tcp://127.0.0.1:1: "),
    Case("scheduler-in-words", nothing, f"{BUILD} --scheduler here", "here"),
    Case(
        "out-of-no-protocol",
        nothing,
        BUILD.replace("--out new", "--out nope://new"),
        "nope://: nothing here opens",
    ),
    Case(
        "info-of-no-protocol",
        nothing,
        f"{DATA} info nope://lab/voxels.zarr",
        "nope://: nothing here opens such an address; known: abfs, gs, s3",
    ),
    Case("synth-into-a-full-folder", nothing, f"{DATA} synth raw", "raw: "),
    Case("synth-into-a-file", written("new", "x"), f"{DATA} synth new", "new: "),
    Case("synth-below-zero", nothing, f"{DATA} synth new --seed -1", "seed of -1"),
    Case(
        "plan-unknown-entry",
        nothing,
        f"{MODELS} plan conv-voxles",
        "no zoo entry 'conv-voxles' in the catalogue; did you mean 'conv-voxels'?",
    ),
    Case(
        "plan-unknown-card",
        nothing,
        f"{MODELS} plan conv-parcels --gpu a600",
        "did you mean 'a6000'?",
    ),
    Case("plan-without-stores", nothing, f"{MODELS} plan conv-parcels --data nowhere", "nowhere"),
    Case(
        "plan-with-another-catalogue",
        nothing,
        f"{MODELS} plan --catalog nowhere.yaml",
        "nowhere.yaml: cannot be read",
    ),
    Case(
        "list-with-another-catalogue",
        nothing,
        f"{MODELS} list --catalog nowhere.yaml",
        "nowhere.yaml: cannot be read",
    ),
    Case(
        "report-of-no-truth",
        nothing,
        f"{MODELS} report runs/gone --truth truth.zarr",
        "runs/gone: no config.yaml there",
    ),
]


@table(CASES)
def test_a_wrong_command_is_one_line_and_nothing_is_written(case: Case, desk: Path) -> None:
    case.check(desk)
