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
    usage("no-such-command", f"{DATA} biuld lab", "No such command 'biuld'; did you mean 'build'?"),
    usage(
        "no-such-model-command",
        f"{MODELS} evalute runs/toy",
        "No such command 'evalute'; did you mean 'evaluate'?",
    ),
    usage("no-such-option", f"{BUILD} --overwrit", "No such option ... --overwrit ... --overwrite"),
    usage("build-nothing", f"{DATA} build", "Missing argument 'DATASET'"),
    usage("inspect-nothing", f"{DATA} inspect", "Missing argument 'DATASET | FILE...'"),
    usage("verify-nothing", f"{DATA} verify", "Missing argument 'PATH...'"),
    usage("info-of-two", f"{DATA} info stores/lab stores/lab", "unexpected extra argument"),
    usage(
        "export-to-nowhere",
        f"{DATA} export stores/lab/voxels.zarr",
        "Missing argument 'OUT.nii.gz'",
    ),
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

TRAIN_LAB = f"{TRAIN} toy --data stores/lab --catalog raw/catalog.yaml --out runs/new"
OTHERWISE = "'? Otherwise "
#: one letter wrong of everything that has a name
MISTYPED = [
    Case("store", nothing, f"{BUILD} voxles", "no store 'voxles' ... did you mean 'voxels'?"),
    Case(
        "catalogue",
        nothing,
        f"{DATA} list --catalog raw/catalg.yaml",
        "raw/catalg.yaml: cannot be read ... did you mean 'raw/catalog.yaml" + OTHERWISE,
    ),
    Case(
        "raw-folder",
        nothing,
        f"{BUILD} --raw rwa",
        "rwa: no such folder; did you mean 'raw" + OTHERWISE + "check --raw",
    ),
    Case(
        "path-of-a-store",
        nothing,
        f"{DATA} info stores/lab/voxel.zarr",
        "no store there; did you mean 'stores/lab/voxels.zarr" + OTHERWISE,
    ),
    Case(
        "folder-of-stores",
        nothing,
        f"{DATA} verify stores/lap",
        "no store there; did you mean 'stores/lab" + OTHERWISE,
    ),
    Case(
        "file",
        nothing,
        f"{DATA} inspect raw/flim.mp4",
        "raw/flim.mp4: no such file; did you mean 'raw/film.mp4" + OTHERWISE,
    ),
    Case(
        "subject",
        nothing,
        f"{DATA} export stores/lab/voxels.zarr out.nii --subject sub-1",
        "no subject 'sub-1'; did you mean 'sub-01'?",
    ),
    Case(
        "run-of-a-scan",
        nothing,
        f"{DATA} export stores/lab/voxels.zarr out.nii --subject sub-01 --run run1",
        "no run 'run1'; did you mean 'run-1'?",
    ),
    Case(
        "entry",
        nothing,
        f"{TRAIN_LAB} --set architecture=dense".replace("toy", "toyy", 1),
        "no zoo entry 'toyy' in the catalogue; did you mean 'toy'?",
    ),
    Case(
        "dataset-folder",
        nothing,
        TRAIN_LAB.replace("stores/lab", "stores/lap"),
        "not built; did you mean ... stores/lab" + OTHERWISE,
    ),
    Case(
        "setting",
        nothing,
        f"{TRAIN_LAB} --set brian=pca",
        "--set: unknown key 'brian'; did you mean 'brain'?",
    ),
    Case("option-of-the-entry", nothing, f"{TRAIN_LAB} --set hiden=3", "did you mean 'hidden'?"),
    Case(
        "brain",
        nothing,
        f"{TRAIN_LAB} --set brain=voxel",
        "no complete store 'voxel' ... did you mean ... voxels.zarr" + OTHERWISE,
    ),
    Case("stimulus", nothing, f"{TRAIN_LAB} --set stimulus=vidoe", "did you mean 'video'?"),
    Case("loss-term", nothing, f"{TRAIN_LAB} --set weights.vidoe=2", "did you mean 'video'?"),
    Case(
        "folder-of-a-run",
        nothing,
        f"{MODELS} show runs/tyo",
        "runs/tyo: no config.yaml there; did you mean 'runs/toy" + OTHERWISE,
    ),
    Case(
        "kind-of-units",
        nothing,
        f"{MODELS} lesion runs/toy --units networs",
        "--units: no unit 'networs'; did you mean 'networks'?",
    ),
    Case(
        "parcel",
        nothing,
        f"{MODELS} lesion runs/toy --units 7networks_lh_net1_1",
        "did you mean '7Networks_LH_Net1_1'?",
    ),
    Case(
        "unit-of-the-control",
        nothing,
        f"{MODELS} lesion runs/toy --retrain Nett1",
        "--retrain: no unit 'Nett1'; did you mean 'Net1'?",
    ),
    Case(
        "unit-of-a-film",
        nothing,
        f"{MODELS} decode runs/toy raw/film.mp4 out.mp4 --lesion Nett1",
        "--lesion: no unit 'Nett1'; did you mean 'Net1'?",
    ),
    Case(
        "subject-of-a-film",
        nothing,
        f"{MODELS} decode runs/toy --bold sub-3 out.mp4",
        "no subject 'sub-3'; did you mean 'sub-01' or 'sub-02'?",
    ),
    Case(
        "truth",
        folder("raw/truth.zarr"),
        f"{MODELS} report runs/toy --truth raw/trut.zarr",
        "raw/trut.zarr: no planted truth; did you mean 'raw/truth.zarr" + OTHERWISE,
    ),
]


@table(MISTYPED)
def test_a_mistyped_name_is_answered_with_the_nearest(case: Case, desk: Path) -> None:
    case.check(desk)


@table(CASES)
def test_a_wrong_command_is_one_line_and_nothing_is_written(case: Case, desk: Path) -> None:
    case.check(desk)
