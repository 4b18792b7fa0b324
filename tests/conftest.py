"""What the whole suite shares: a tiny synthetic dataset, a whole good example, an S3 server."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from hypothesis import Phase, settings

# `make mutate`: the same examples for every mutant, and one that fails is enough
settings.register_profile(
    "mutate",
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
)

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real() -> Path:
    """Folder of the real data; the test is skipped where it is absent."""
    if not REAL.is_dir():
        pytest.skip(f"no real data beside the checkout ({REAL.name}/ of the workplace)")
    return REAL


@pytest.fixture(scope="session")
def tiny_raw(tmp_path_factory) -> Path:
    """Raw files of ``synth --size tiny``: scans, movies, atlas, catalog.yaml, truth.zarr."""
    from sherlock_data.synthetic import synth

    out = tmp_path_factory.mktemp("synth") / "raw"
    synth(out, size="tiny", seed=0)
    return out


@pytest.fixture(scope="session")
def tiny_stores(tiny_raw, tmp_path_factory) -> Path:
    """Folder of every default store of the tiny dataset; tests must not write to it."""
    from sherlock_data.build import build
    from sherlock_data.catalog import load_catalog
    from sherlock_data.scan import resolve

    out = tmp_path_factory.mktemp("stores")
    catalog = load_catalog(tiny_raw / "catalog.yaml")
    build(resolve("synth", catalog.dataset("synth"), tiny_raw), catalog, out)
    return out / "synth"


@pytest.fixture(scope="session")
def good(tmp_path_factory) -> Path:
    """Folder with `raw/`, `stores/lab/`, `runs/toy/`, made by the commands; read only."""
    from tests.corpus import example

    folder = tmp_path_factory.mktemp("corpus") / "good"
    example.make(folder)
    return folder


@pytest.fixture
def desk(good, tmp_path, monkeypatch) -> Path:
    """Copy of the good example, the current folder of the test; the run reads the copied stores."""
    folder = tmp_path / "desk"
    shutil.copytree(good, folder)
    config = folder / "runs/toy/config.yaml"
    config.write_text(config.read_text().replace(str(good), str(folder)))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def endpoint():
    """Address of an S3 server of this process."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def environment(endpoint, monkeypatch, tmp_path):
    """What a user's shell says: server and credentials, nothing of this machine."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    yield monkeypatch
    from sherlock_data import remote

    remote.forget()


@pytest.fixture
def bucket(environment):
    """An empty bucket called ``lab``, as fsspec sees it."""
    from sherlock_data import remote

    files = remote.file_system("s3", asynchronous=False)
    files.mkdir("lab")
    yield files
    files.rm("lab", recursive=True)
