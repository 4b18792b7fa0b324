"""Catalogues that cannot be read, and datasets that say what they cannot say."""

from __future__ import annotations

from pathlib import Path

from tests.corpus.case import Case, table
from tests.corpus.catalogue import BUILD, CATALOG, LIST, NAME, says
from tests.corpus.damage import folder, removed, written

BOMB = "\n".join(
    ["datasets:", "  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    + ["  lab: {bold: x, subjects: *a7}"]
)


def whole(text: str | bytes) -> object:
    """Replace the catalogue."""
    return written(CATALOG, text)


CASES = [
    Case("missing", removed(CATALOG), LIST, NAME + "cannot be read ... --catalog"),
    Case("a-folder", folder(CATALOG), LIST, NAME + "cannot be read ... --catalog"),
    Case("not-utf-8", whole(b"datasets:\n  l\xe4b: {}\n"), LIST, NAME + "cannot be read"),
    Case("empty", whole(""), BUILD, "no dataset 'lab' ... known: haxby2001, sherlock"),
    Case("tabs", whole("datasets:\n\tlab: {bold: x}\n"), LIST, NAME + "not valid YAML"),
    Case("open-bracket", says("[video, audio]", "[video, audio"), LIST, NAME + "not valid YAML"),
    Case("control-character", whole("datasets: \x07\n"), LIST, NAME + "not valid YAML"),
    Case(
        "python-tag",
        whole("datasets: !!python/object/apply:os.mkdir [new]\n"),
        LIST,
        NAME + "not valid YAML ... could not determine a constructor",
    ),
    Case("a-list", whole("- datasets\n"), LIST, NAME + "a catalogue is a mapping; sections: "),
    Case("a-word", whole("datasets\n"), LIST, NAME + "a catalogue is a mapping; sections: "),
    Case(
        "section-of-a-list", whole("stores: [volumes]\n"), LIST, NAME + "a catalogue is a mapping"
    ),
    Case(
        "unknown-section",
        says("datasets:", "dataset:"),
        LIST,
        NAME + "unknown key 'dataset'; did you mean 'datasets'?",
    ),
    Case("a-number-for-a-section", whole("7: {}\n"), LIST, NAME + "unknown key '7'"),
    Case("dataset-of-nothing", whole("datasets:\n  lab:\n"), BUILD, NAME + "datasets.lab: "),
    Case(
        "a-number-for-a-name",
        whole("datasets:\n  7: {bold: x}\n"),
        LIST,
        NAME + "datasets.7 ... valid string (found 7); correct this key",
    ),
    Case(
        "unknown-key",
        says("annotations:", "anotations:"),
        BUILD,
        NAME + "unknown key 'datasets.lab.anotations'; did you mean 'annotations'?",
    ),
    Case(
        "unknown-key-of-a-run",
        says("run-1, volumes", "run-1, volume"),
        BUILD,
        NAME + "unknown key 'datasets.lab.runs.0.volume'; did you mean 'volumes'?",
    ),
    Case(
        "key-twice",
        says("    atlas: quarters", "    atlas: quarters\n    atlas: halves"),
        BUILD,
        NAME + "not valid YAML (the key 'atlas' is there twice",
    ),
    Case(
        "dataset-twice",
        says("atlases:", "  lab: {bold: x}\natlases:"),
        BUILD,
        NAME + "not valid YAML (the key 'lab' is there twice",
    ),
    Case(
        "no-files",
        says("    bold: s{subject}.nii.gz\n", ""),
        BUILD,
        NAME + "datasets.lab.bold: Field required",
    ),
    Case(
        "tr-in-words",
        says("1.5", "1.5 s"),
        BUILD,
        NAME + "datasets.lab.repetition_time_s ... '1.5 s' ... correct",
    ),
    Case("tr-zero", says("1.5", "0"), BUILD, NAME + "datasets.lab.repetition_time_s ... (found 0)"),
    Case(
        "tr-infinite",
        says("1.5", ".inf"),
        BUILD,
        NAME + "datasets.lab.repetition_time_s ... finite",
    ),
    Case(
        "lag-nan",
        says("space: native", "lag_s: .nan"),
        BUILD,
        NAME + "datasets.lab.lag_s ... finite",
    ),
    Case(
        "subjects-in-words",
        says("subjects: 2", "subjects: two"),
        BUILD,
        NAME
        + "datasets.lab.subjects ... how many to expect ... labels (found 'two'); correct this key",
    ),
    Case(
        "subjects-below-one",
        says("subjects: 2", "subjects: -2"),
        BUILD,
        NAME
        + "datasets.lab.subjects ... how many to expect ... labels (found -2); correct this key",
    ),
    Case(
        "subjects-nested",
        says("subjects: 2", "subjects: [[1, 2]]"),
        BUILD,
        NAME
        + "datasets.lab.subjects ... how many to expect, or a list of labels; correct this key",
    ),
    Case(
        "aliases-that-explode",
        whole(BOMB),
        BUILD,
        NAME + "not valid YAML (with its aliases written out it has over 100,000 values)",
    ),
    Case(
        "alias-of-itself",
        says("subjects: 2", "subjects: &a [*a]"),
        BUILD,
        NAME + "not valid YAML (what is at line 7 holds itself)",
    ),
    Case(
        "run-without-a-name",
        says("{name: run-1, volumes", "{volumes"),
        BUILD,
        NAME + "datasets.lab.runs.0.name",
    ),
    Case(
        "runs-of-one-name",
        says("run-2", "run-1"),
        BUILD,
        NAME + "datasets.lab: two runs share a name",
    ),
    Case(
        "no-volumes",
        says("run-1, volumes: 60", "run-1, volumes: 0"),
        BUILD,
        NAME + "datasets.lab.runs.0.volumes",
    ),
    Case(
        "half-a-volume",
        says("run-1, volumes: 60", "run-1, volumes: 60.5"),
        BUILD,
        NAME + "datasets.lab.runs.0.volumes",
    ),
    Case(
        "volumes-beyond-counting",
        says("run-1, volumes: 60", f"run-1, volumes: {10**30}"),
        BUILD,
        "raw/s1.nii.gz: has 120 volumes",
    ),
    Case(
        "a-repeat-of-no-run",
        says("    atlas: q", "    repeats: [{volumes: 5, at: {run-3: 0}}]\n    atlas: q"),
        BUILD,
        NAME + "datasets.lab: repeats: no run 'run-3'; did you mean 'run-",
    ),
    Case(
        "a-repeat-beyond-its-run",
        says("    atlas: q", "    repeats: [{volumes: 5, at: {run-1: 56}}]\n    atlas: q"),
        BUILD,
        NAME + "datasets.lab: repeats: 5 volumes at 56 leave run-1 (60)",
    ),
    Case(
        "unknown-placeholder",
        says("{subject}", "{sub}"),
        BUILD,
        "bold: s{sub}.nii.gz: unknown placeholder ... did you mean 'subject'?",
    ),
    Case(
        "absolute-pattern",
        says("s{subject}", "/raw/s{subject}"),
        BUILD,
        "bold: /raw/s{subject}.nii.gz: is not relative ... --raw",
    ),
    Case(
        "pattern-of-nothing",
        says("s{subject}.nii.gz", '""'),
        BUILD,
        "bold ... names no file; write it as s{subject}.nii.gz",
    ),
    Case(
        "pattern-with-a-null",
        says("s{subject}.nii.gz", '"s\\0{subject}.nii.gz"'),
        BUILD,
        "no file matches ... nearest names there: s",
    ),
    Case(
        "name-too-long-for-a-file",
        says("s{subject}.nii.gz", f"{'s' * 300}.nii.gz"),
        BUILD,
        "cannot be read (File name too long); check the path",
    ),
    Case(
        "movie-of-a-number",
        says("movie: film.mp4", "movie: 7"),
        BUILD,
        NAME + "datasets.lab.runs.0.movie",
    ),
    Case(
        "dataset-that-leaves-the-folder",
        says("  lab:", "  ../lab:"),
        BUILD.replace("build lab", "build ../lab"),
        NAME + "datasets ... '../lab' cannot be a name; use letters",
    ),
    Case(
        "store-that-leaves-the-folder",
        says("  pca:", "  ../../pca:"),
        BUILD,
        NAME + "stores ... '../../pca' cannot be a name; use letters",
    ),
    Case(
        "model-that-leaves-the-folder",
        says("  toy:", "  ../toy:"),
        LIST,
        NAME + "models ... '../toy' cannot be a name; use letters",
    ),
    Case(
        "run-that-leaves-the-folder",
        says("name: run-2", "name: ../run-2"),
        BUILD,
        NAME + "datasets.lab.runs ... '../run-2' cannot be a name; use letters",
    ),
    Case(
        "subject-that-leaves-the-folder",
        says("subjects: 2", "subjects: [1, ../../2]"),
        BUILD,
        NAME + "datasets.lab.subjects ... '../../2' cannot be a name; use letters",
    ),
    Case(
        "subject-of-a-script",
        says("subjects: 2", "subjects: [1, <script>]"),
        BUILD,
        NAME + "datasets.lab.subjects ... '<script>' cannot be a name; use letters",
    ),
]


@table(CASES)
def test_a_bad_catalogue_is_one_line_and_nothing_is_written(case: Case, desk: Path) -> None:
    case.check(desk)
