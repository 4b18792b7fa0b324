"""A store is absent, resumable or complete; nothing half-built opens."""

import json
from dataclasses import dataclass

import google_crc32c
import numpy as np
import pytest
import xarray as xr
import zarr

import sherlock_data as sd
from sherlock_data import contract, store
from sherlock_data.errors import StoreError
from sherlock_data.timing import Clock, Run

CLOCK = Clock(1.5, (Run("run-1", 20), Run("run-2", 12)))
X, Y, Z = 3, 4, 5


@dataclass(frozen=True)
class Subject:
    """Writes one subject's volumes, whose values tell where they belong."""

    index: int
    weight: float = 1.0

    @property
    def name(self) -> str:
        return f"sub-{self.index + 1:02d}"

    def run(self, path, report):
        view = store.stored_view(path, "bold", "r+")
        view[self.index] = volumes(self.index).transpose(0, 3, 2, 1)
        report(1.0)
        return {"mean": np.float32(self.index)}


def volumes(subject: int) -> np.ndarray:
    rng = np.random.default_rng(subject)
    return rng.standard_normal((CLOCK.volumes, X, Y, Z)).astype("f4")


def plan_for(path, subjects=2):
    coords = contract.time_coords(CLOCK)
    coords["subject"] = contract.strings("subject", [f"sub-{i + 1:02d}" for i in range(subjects)])
    return store.StorePlan(
        path=path,
        attrs=contract.store_attrs(
            dataset="toy",
            store="volumes",
            recipe={"kind": "volumes"},
            space="native",
            repetition_time_s=1.5,
            lag_s=0.0,
        ),
        inputs=[{"name": "a.nii", "path": "a.nii", "bytes": 5, "sha256": "00"}],
        coords=xr.Dataset(coords=coords),
        arrays={
            "bold": store.ArraySpec(
                dims=("subject", "time", "x", "y", "z"),
                shape=(subjects, CLOCK.volumes, X, Y, Z),
                chunks=(1, 8, X, Y, Z),
                dtype="float32",
                fill_value=float("nan"),
                stored_order=(0, 1, 4, 3, 2),
            )
        },
        parts=[Subject(i) for i in range(subjects)],
        finish=lambda results: xr.Dataset(
            {
                "mean": (
                    "subject",
                    [float(results[f"sub-{i + 1:02d}"]["mean"]) for i in range(subjects)],
                )
            }
        ),
    )


def run_parts(plan, only=None):
    for part in plan.parts:
        if only is None or part.name in only:
            store.run_part(plan.path, part, lambda fraction: None)


def finish(plan):
    store.complete(
        plan, {p.name: store.load_part(plan.path, p.name) for p in plan.parts}, plan.inputs
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "toy" / "volumes.zarr"


@pytest.fixture
def built(path):
    plan = plan_for(path)
    store.begin(plan)
    run_parts(plan)
    finish(plan)
    return path


def test_states_follow_the_build(path):
    plan = plan_for(path)
    assert store.state(path) == "absent"
    store.begin(plan)
    run_parts(plan, only={"sub-01"})
    assert store.state(path) == "resumable"
    run_parts(plan, only={"sub-02"})
    finish(plan)
    assert store.state(path) == "complete"
    assert not path.with_name("volumes.zarr.build").exists()


@pytest.mark.parametrize(
    "opener", [sd.open, xr.open_zarr, zarr.open_group], ids=lambda f: f.__name__
)
def test_nothing_half_built_can_be_opened(path, opener):
    plan = plan_for(path)
    store.begin(plan)
    run_parts(plan)
    with pytest.raises((StoreError, FileNotFoundError)):
        opener(str(path)) if opener is not zarr.open_group else opener(str(path), mode="r")


def test_values_come_back_in_order_of_their_dims(built):
    bold = sd.open(built).bold
    assert bold.dims == ("subject", "time", "x", "y", "z")
    for subject in range(2):
        assert np.array_equal(bold[subject].values, volumes(subject))


def test_stored_view_reads_the_bytes_as_they_lie(built):
    view = store.stored_view(built, "bold")
    assert view.shape == (2, CLOCK.volumes, Z, Y, X)
    assert np.array_equal(view[1, 3:9], volumes(1)[3:9].transpose(0, 3, 2, 1))


def test_plain_xarray_opens_the_same_dataset_silently(built):
    plain, ours = xr.open_zarr(built), sd.open(built)
    xr.testing.assert_identical(plain.load(), ours.load())
    assert ours.time.dtype == "float64"
    assert ours.time.attrs["units"] == "s"
    assert ours.subject.values.tolist() == ["sub-01", "sub-02"]
    assert set(contract.ATTRIBUTES) <= set(ours.attrs)
    assert {"run", "run_time", "tr"} <= set(ours.bold.coords)


def test_a_folder_opens_as_a_tree(built):
    tree = sd.open(built.parent)
    assert list(tree.children) == ["volumes"]
    assert tree["volumes"].bold.sel(subject="sub-02").shape == (CLOCK.volumes, X, Y, Z)


def test_a_resumed_build_keeps_what_was_done(path):
    plan = plan_for(path)
    store.begin(plan)
    run_parts(plan, only={"sub-01"})
    again = plan_for(path)
    store.begin(again)
    assert store.load_part(path, "sub-01")["mean"] == 0
    assert store.load_part(path, "sub-02") is None


def test_another_recipe_starts_from_nothing(path):
    plan = plan_for(path)
    store.begin(plan)
    run_parts(plan, only={"sub-01"})
    other = plan_for(path)
    other.attrs["recipe"] = {"kind": "volumes", "mask": {"signal_fraction": 0.5}}
    store.begin(other)
    assert store.load_part(path, "sub-01") is None


def test_two_builds_are_byte_identical(built, tmp_path):
    other = tmp_path / "again" / "volumes.zarr"
    plan = plan_for(other)
    store.begin(plan)
    run_parts(plan)
    finish(plan)
    files = sorted(p.relative_to(built) for p in built.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    for file in files:
        assert (built / file).read_bytes() == (other / file).read_bytes(), file


def test_the_manifest_lists_every_object_with_its_checksum(built):
    objects = json.loads((built / "manifest.json").read_text())["objects"]
    files = {
        str(p.relative_to(built)): p.read_bytes()
        for p in built.rglob("*")
        if p.is_file() and p.name != "manifest.json" and p != built / "zarr.json"
    }
    assert set(objects) == set(files)
    for key, data in files.items():
        assert objects[key] == {"bytes": len(data), "crc32c": google_crc32c.value(data)}


def test_a_flipped_byte_in_a_chunk_is_not_read_as_data(built):
    chunk = next(p for p in (built / "bold" / "c").rglob("*") if p.is_file())
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"(?i)checksum"):
        sd.open(built).bold.values  # noqa: B018


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        pytest.param({"schema_version": 99}, "upgrade", id="newer-schema"),
        pytest.param({"schema_version": None}, "schema version None", id="no-schema"),
    ],
)
def test_a_schema_we_do_not_know_is_refused(built, attrs, message):
    root = json.loads((built / "zarr.json").read_text())
    root["attributes"].update(attrs)
    (built / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(StoreError, match=message):
        sd.open(built)


@pytest.mark.parametrize("name", ["volumes.zarr", ""], ids=["store", "folder"])
def test_opening_nothing_names_the_command(tmp_path, name):
    with pytest.raises(StoreError, match="sherlock-data build"):
        sd.open(tmp_path / "nowhere" / name)


GARBAGE = [
    pytest.param(b"\xff\xfe\x00", id="not-utf-8"),
    pytest.param(b"?", id="not-json"),
    pytest.param(b"[]", id="no-object"),
    pytest.param(b'{"attributes": 3}', id="attributes-are-a-number"),
    pytest.param(b'{"attributes": {"schema_version": 1}}', id="nothing-of-zarr"),
    pytest.param(
        b'{"attributes": {"schema_version": 1}, "zarr_format": 3, "node_type": "group", '
        b'"consolidated_metadata": {"kind": "inline", "metadata": {"bold": {}}}}',
        id="arrays-without-metadata",
    ),
]


@pytest.mark.parametrize("data", GARBAGE)
def test_garbage_for_metadata_is_one_line(built, data):
    (built / "zarr.json").write_bytes(data)
    with pytest.raises(
        StoreError, match=r"volumes\.zarr: its metadata cannot be read; run"
    ) as said:
        sd.open(built)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"?", b"[]"])
def test_garbage_for_a_plan_starts_the_build_anew(path, data):
    plan = plan_for(path)
    store.begin(plan)
    run_parts(plan, only={"sub-01"})
    path.with_name("volumes.zarr.build").joinpath("plan.json").write_bytes(data)
    store.begin(plan_for(path))
    assert store.load_part(path, "sub-01") is None
    run_parts(plan)
    finish(plan)
    assert store.state(path) == "complete"
