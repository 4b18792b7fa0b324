"""docs/how-to/new-entry.md, done: its rows are listed, its file is found, both are trained."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from sherlock_data.catalog import load_catalog
from sherlock_models import architectures, zoo
from sherlock_models.resolve import resolve
from sherlock_models.training.train import fit

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "new-entry.md"


def blocks(language: str) -> list[str]:
    """Blocks of code of the page, each as it would be saved."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The page's catalogues; its file of an architecture lies beside the packaged ones."""
    (source,) = blocks("python")
    folder = tmp_path / "architectures"
    folder.mkdir()
    name = re.match(r"# sherlock_models/architectures/(\w+)\.py", source)
    assert name is not None
    (folder / f"{name[1]}.py").write_text(source)
    monkeypatch.setattr(architectures, "__path__", [*architectures.__path__, str(folder)])
    monkeypatch.setattr(zoo, "ARCHITECTURES", zoo.find_architectures())
    monkeypatch.delitem(sys.modules, f"{architectures.__name__}.{name[1]}")
    catalogs = []
    for index, row in enumerate(blocks("yaml")):
        path = tmp_path / f"mine-{index}.yaml"
        path.write_text(row)
        catalogs.append(path)
    return catalogs


def test_the_packaged_architectures_are_found_by_their_files() -> None:
    assert list(zoo.find_architectures()) == ["compressor", "conv", "dense", "spatial", "temporal"]


def test_its_rows_are_entries(mine: list[Path], stores: Path, tmp_path: Path) -> None:
    packaged = load_catalog().models
    names = [next(iter(load_catalog(path).models.keys() - packaged.keys())) for path in mine]
    assert names == ["sound-parcels", "recurrent-sound"]
    for name, path in zip(names, mine, strict=True):
        rows = [row["entry"] for row in zoo.list_models(load_catalog(path))]
        assert rows == [*packaged, name]
        options = {"steps": 80, "batch_size": 32, "learning_rate": 3e-3}
        run = fit(resolve(name, stores, catalog=path, options=options), tmp_path / name)
        losses = [line["loss"] for line in run.metrics() if line["split"] == "train"]
        assert sum(losses[-10:]) < sum(losses[:10])


def test_its_architecture_keeps_to_the_frame(mine: list[Path], stores: Path) -> None:
    model = zoo.create("recurrent-sound", data=stores, catalog=mine[1])
    assert model.sizes.delays == tuple(range(10))
    seen = {name: torch.randn(4, *model.sizes.input_shape(name)) for name in model.sizes.stimulus}
    output = model(seen, channel=torch.zeros_like)
    assert torch.allclose(output.stimulus["audio"], output.stimulus["audio"][:1])
    output = model(seen)
    (output.brain.square().sum() + output.stimulus["audio"].square().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_the_page_names_every_option_with_its_default() -> None:
    text = PAGE.read_text("utf-8")
    for name, architecture in zoo.ARCHITECTURES.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*$", text, re.M)
        inherited = zoo.ARCHITECTURES["conv"].options if name == "spatial" else None
        for option, field in architecture.options.model_fields.items():
            known = inherited is not None and option in inherited.model_fields
            if option in ("width", "subject_embedding") or known:
                continue
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            shown = default[0] if option == "hidden" and name == "conv" else default
            assert f"`{option}: {shown}`" in row
