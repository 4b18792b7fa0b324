"""Atlases, stores, extractors and models that a catalogue cannot mean."""

from __future__ import annotations

from pathlib import Path

from tests.corpus.case import Case, nothing, table
from tests.corpus.catalogue import BUILD, LIST, NAME, says

CASES = [
    Case(
        "atlas-of-nothing",
        says("{image: atlas.nii, labels: atlas.tsv, space: native}", "{}"),
        BUILD,
        NAME + "atlases.quarters: give either `source: nilearn` with `parcels`, or `image`",
    ),
    Case(
        "atlas-of-two-sources",
        says("{image: atlas.nii", "{source: nilearn, image: atlas.nii"),
        BUILD,
        NAME + "atlases.quarters: give either",
    ),
    Case(
        "atlas-of-a-number",
        says("image: atlas.nii", "image: 7"),
        BUILD,
        NAME + "atlases.quarters.image",
    ),
    Case(
        "unknown-atlas",
        says("atlas: quarters", "atlas: quarter"),
        BUILD,
        "no atlas 'quarter' in the catalogue; did you mean 'quarters'?",
    ),
    Case(
        "unknown-kind",
        says("kind: pca", "kind: pcas"),
        BUILD,
        NAME + "stores.pca: kind is 'pcas'; did you mean 'pca'?",
    ),
    Case("no-kind", says("kind: pca, ", ""), BUILD, NAME + "stores.pca: kind is None"),
    Case(
        "kind-of-a-list",
        says("kind: pca", "kind: [pca]"),
        BUILD,
        NAME + "stores.pca: kind is ['pca']",
    ),
    Case(
        "store-of-nothing",
        says("{kind: pca, of: voxels, components: 4}", ""),
        BUILD,
        NAME + "stores.pca ... valid dictionary (found None); correct this key",
    ),
    Case(
        "unknown-recipe-key",
        says("components: 4", "component: 4"),
        BUILD,
        NAME + "unknown key 'stores.pca.component'; did you mean 'components'?",
    ),
    Case(
        "no-components",
        says("components: 4", "components: 0"),
        BUILD,
        NAME + "stores.pca.components ... (found 0); correct this key",
    ),
    Case(
        "more-components-than-trs",
        says("components: 4", "components: 4000"),
        BUILD + " pca",
        "pca ... components ... the data have rank 118 ... set `components:` to 118 or fewer",
    ),
    Case(
        "components-of-no-store",
        says("of: voxels", "of: voxel"),
        BUILD + " pca",
        "voxel ... ' in the catalogue; did you mean 'voxels'?",
    ),
    Case(
        "components-of-themselves",
        says("of: voxels", "of: pca"),
        BUILD + " pca",
        "pca ... of kind pca; name a store of kind voxels",
    ),
    Case(
        "mask-beyond-all",
        says("  pca:", "  voxels: {kind: voxels, mask: {signal_fraction: 1.5}}\n  pca:"),
        BUILD,
        NAME + "stores.voxels.mask.signal_fraction",
    ),
    Case(
        "grey-matter-of-a-native-scan",
        nothing,
        BUILD + " grey",
        "grey ... MNI152 ... this dataset is in native; give a mask file",
    ),
    Case(
        "a-store-that-is-not-there",
        nothing,
        BUILD + " voxel",
        "no store 'voxel' in the catalogue; did you mean 'voxels'?",
    ),
    Case(
        "picture-of-one-pixel",
        says("width: 8", "width: 1"),
        BUILD,
        NAME + "stores.stimulus.width ... (found 1); correct this key",
    ),
    Case(
        "feature-of-a-taken-name",
        says("pitch: pitch.npy", "time: pitch.npy"),
        BUILD,
        NAME + "stores.features ... 'time' cannot name a variable",
    ),
    Case(
        "unknown-extractor",
        says("kind: features,", "kind: features, extractors: [resnet5],"),
        BUILD,
        "no extractor 'resnet5' in the catalogue; did you mean 'resnet50'?",
    ),
    Case(
        "extractor-of-no-source",
        says("stores:", "extractors:\n  mine: {source: pip, model: m, features: 3}\nstores:"),
        BUILD,
        NAME + "extractors.mine ... (found 'pip'); correct this key",
    ),
    Case(
        "unknown-architecture",
        says("dense", "dens"),
        "sherlock-models list --catalog raw/catalog.yaml",
        "dens ... did you mean 'dense'?",
    ),
    Case(
        "hidden-below-one",
        says("hidden: [4]", "hidden: [-4]"),
        "sherlock-models plan toy --catalog raw/catalog.yaml --data stores/lab",
        "hidden",
    ),
    Case(
        "delays-backwards",
        says("hidden: [4]", "delays: 5..1, hidden: [4]"),
        "sherlock-models plan toy --catalog raw/catalog.yaml --data stores/lab",
        "--set: delays: delays are TRs of the past, each once",
    ),
    Case(
        "a-stimulus-of-a-mapping",
        says("[video, audio]", "{video: 1}"),
        LIST,
        NAME + "models.toy.stimulus ... correct this key",
    ),
]


@table(CASES)
def test_a_bad_recipe_is_one_line_and_nothing_is_written(case: Case, desk: Path) -> None:
    case.check(desk)
