"""The template folder: from packages, from a TemplateFlow folder, from files that the config names, and without network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import templateflow
from settings_files import settings_file

from bhx_prep import cli
from bhx_prep.atlas import checks
from bhx_prep.atlas.atlas import FILES, load_atlas
from bhx_prep.atlas.fetch import fetch
from bhx_prep.atlas.label_files import read_names
from bhx_prep.atlas.sources import packages
from bhx_prep.brain_maps import harmonics
from bhx_prep.config import config
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.features import parcellate
from bhx_prep.io.meshes import GRAYORDINATES_AFFINE, GRAYORDINATES_SHAPE

VOLUME = "tpl-MNI152NLin2009cAsym/tpl-MNI152NLin2009cAsym_res-01_atlas-Schaefer2018_desc-100Parcels7Networks_dseg.nii.gz"
SURFACE = "tpl-fsaverage/tpl-fsaverage_hemi-{}_den-164k_atlas-Schaefer2018_seg-7n_scale-100_dseg.label.gii"


@pytest.fixture(scope="module")
def flow(tmp_path_factory) -> Path:
    """A TEMPLATEFLOW_HOME as its client lays it out: the skeleton of empty files that the client ships."""
    home = tmp_path_factory.mktemp("templateflow")
    skeleton = Path(templateflow.__file__).parent / "conf/templateflow-skel.zip"
    with zipfile.ZipFile(skeleton) as archive:
        archive.extractall(home)
    return home


def fill(home: Path) -> None:
    """Put the files of Schaefer 100 in 7-network order into a TemplateFlow folder, made of those of the packages."""
    (left, right), _ = packages.read_annot(100, 7)
    for hemi, labels, first in (("L", left, 1), ("R", right, 51)):
        local = np.where(labels > 0, labels - first + 1, 0).astype(np.int32)
        array = nib.gifti.GiftiDataArray(local, intent="NIFTI_INTENT_LABEL", datatype="NIFTI_TYPE_INT32")
        nib.save(nib.GiftiImage(darrays=[array]), home / SURFACE.format(hemi))
    seven = packages.from_packages(AtlasSection(parcels=100, networks=7))
    nib.save(nib.Nifti1Image(*seven.volume()), home / VOLUME)


#: Runs the command of the rule with each of the arguments, then what is checked before any job; a line of dashes each.
_OFFLINE = """
import json, sys
from pathlib import Path
from bhx_prep import startup
from bhx_prep.atlas import fetch
from bhx_prep.config import config
from bhx_model.errors import BhxError
commands, study, folder = json.loads(sys.argv[1])
for words in commands:
    print(f"exit {fetch.main(words)}\\n---", file=sys.stderr)
try:
    startup.check_start(config.check(study), Path(folder), submits=False)
except BhxError as error:
    print(f"{type(error).__name__} {error}", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def offline(flow: Path, tmp_path_factory) -> tuple[list[str], Path]:
    """What a process without network says: of an atlas that is nowhere, of one in TemplateFlow's folder, before any job.

    One process, since TemplateFlow's client takes seconds to start; and the folder with what it wrote.
    """
    fill(flow)
    folder = tmp_path_factory.mktemp("offline")
    shut = {f"{kind}_{case}": "http://127.0.0.1:9" for kind in ("http", "https") for case in ("proxy",)}
    shut |= {name.upper(): value for name, value in shut.items()} | {"NO_PROXY": "", "no_proxy": ""}
    atlases = {
        "nowhere": {"source": "templateflow", "parcels": 200},
        "flow": {"source": "templateflow", "parcels": 100, "networks": 7},
    }
    commands = [
        ["--atlas", settings_file(atlas), "--out", str(folder / name)] for name, atlas in atlases.items()
    ]
    study = {
        "cohorts": {"a": {"input": "timeseries", "root": "a", "tr_s": 2}},
        "atlas": {"source": "templateflow"},
        "results": str(folder / "results"),
    }
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE, json.dumps([commands, study, str(folder)])],
        env=os.environ | shut | {"TEMPLATEFLOW_HOME": str(flow)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr.split("---\n"), folder


def snakemake(
    root: Path,
    folder: Path,
    atlas: dict,
    target: str,
    environment: dict[str, str] | None = None,
    input: str = "timeseries",
) -> subprocess.CompletedProcess[str]:
    """Ask for a target of a study of one table with this atlas."""
    table = folder / "a/sub-01/func/sub-01_task-rest_timeseries.tsv"
    table.parent.mkdir(parents=True)
    table.write_text("r1\tr2\n0\t1\n1\t0\n")
    cohort = {"input": input, "root": "a", "tr_s": 2}
    (folder / "config.yaml").write_text(json.dumps({"cohorts": {"a": cohort}, "atlas": atlas}))
    words = ["--snakefile", str(root / "workflow/Snakefile"), "--cores", "1", target]
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *words],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_without_network_and_files_it_is_one_sentence(offline: tuple[list[str], Path]) -> None:
    (nowhere, _, _), folder = offline
    assert "exit 1\n" in nowhere
    [line] = [line for line in nowhere.splitlines() if " ERROR " in line]
    assert "could not fetch it" in line
    assert "set TEMPLATEFLOW_HOME" in line
    assert "Traceback" not in nowhere
    assert not (folder / "nowhere").exists()


def test_files_in_templateflows_folder_are_used_without_network(
    offline: tuple[list[str], Path], tmp_path: Path
) -> None:
    (_, found, _), folder = offline
    assert "exit 0\n" in found, found
    (tmp_path / "flow").symlink_to(folder / "flow")
    metadata = json.loads((tmp_path / "flow/atlas.json").read_text())
    assert Path(VOLUME).name in metadata["inputs"]
    assert metadata["versions"]["templateflow"] == templateflow.__version__
    packages = fetch(AtlasSection(parcels=100, networks=7), tmp_path / "packages")
    wanted = AtlasSection(source="templateflow", parcels=100, networks=7)
    folders = {name: checks.is_fetched(wanted, tmp_path / name) for name in ("flow", "packages", "nowhere")}
    assert folders == {"flow": True, "packages": False, "nowhere": False}
    assert not checks.is_fetched(wanted.model_copy(update={"parcels": 200}), tmp_path / "flow")
    assert metadata["names"] == packages["names"]
    assert metadata["names"][0].startswith("7Networks_LH")
    for name in ("atlas_volume.nii.gz", "atlas_fsLR.npz", "atlas_fsaverage5.npz"):
        assert metadata["files"][name] == packages["files"][name], name


def test_what_cannot_be_fetched_is_an_error_of_the_machine(offline: tuple[list[str], Path]) -> None:
    (_, _, before), folder = offline
    assert before.splitlines()[-1].startswith("SiteError TemplateFlow has no")
    assert "could not fetch it" in before
    assert not (folder / "results").exists()


def test_what_cannot_be_fetched_is_said_before_any_job(root: Path, flow: Path, tmp_path: Path) -> None:
    earlier = {"label": "Schaefer7n100p", "source": "packages"}  # templates of before the atlas was changed
    (tmp_path / "results/templates").mkdir(parents=True)
    (tmp_path / "results/templates/atlas.json").write_text(json.dumps(earlier))
    shut = {
        "https_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "TEMPLATEFLOW_HOME": str(flow),
    }
    done = snakemake(root, tmp_path, {"source": "templateflow"}, "cohort_a", environment=os.environ | shut)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "could not fetch it" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "results").rglob("*.log"))


MNI, MNI6 = "MNI152NLin2009cAsym", "MNI152NLin6Asym"


@pytest.mark.parametrize(
    ("atlas", "space", "lines"),
    [
        ({}, MNI, []),
        ({}, "fsaverage5", []),
        ({"parcels": 300}, MNI, ["cohorts.a.space: MNI152NLin2009cAsym, where .* no volume of 300 parcels"]),
        ({"parcels": 300, "volume": "tpl-MNI152NLin2009cAsym_dseg.nii.gz"}, MNI, []),
        ({"parcels": 300, "source": "templateflow"}, MNI, []),
        ({}, MNI6, ["cohorts.a.space: MNI152NLin6Asym, but the atlas is in MNI152NLin2009cAsym"]),
        ({"volume": "tpl-MNI152NLin6Asym_dseg.nii.gz"}, MNI6, []),
        ({"parcels": 600}, "fsLR", ["cohorts.a.space: fsLR, where", "atlas: the harmonics .* no fsLR-32k labels"]),
        ({"parcels": 600, "cifti": "a.dlabel.nii"}, "fsLR", []),
        ({"parcels": 600, "source": "templateflow"}, MNI, ["atlas: the harmonics"]),
        ({"source": "files", "cifti": "a", "names": "n"}, "fsLR", []),
        ({"source": "files", "cifti": "a", "names": "n"}, MNI, ["not named in the config: set atlas.volume"]),
        ({"source": "files", "left": "l", "right": "r", "names": "n"}, "fsaverage5", []),
    ],
)  # fmt: skip
def test_what_the_atlas_lacks_is_told_by_the_config_alone(atlas: dict, space: str, lines: list[str]) -> None:
    cohorts = {
        "a": {"input": "fmriprep", "root": "a", "space": space},
        "b": {"input": "timeseries", "root": "b"},
    }
    study = config.check({"cohorts": cohorts, "experiments": {"e": {"cohorts": ["b"]}}, "atlas": atlas})
    found = checks.mistakes(study)
    assert len(found) == len(lines)
    for line, due in zip(found, lines, strict=True):
        assert re.search(due, line), line


def test_what_the_atlas_lacks_is_said_before_anything_runs(root: Path, tmp_path: Path, capsys) -> None:
    done = snakemake(root, tmp_path, {"parcels": 300}, "results/templates/atlas.json", input="fmriprep")
    said = "this will fail: cohorts.a.space: MNI152NLin2009cAsym, where the atlas is not there"
    assert said in done.stderr
    assert cli.main(["config", "check", str(tmp_path / "config.yaml")]) == 1
    assert "cohorts.a.space: MNI152NLin2009cAsym, where" in capsys.readouterr().err


def test_a_file_named_in_the_config_goes_before_that_of_the_source(tmp_path: Path) -> None:
    mine = tmp_path / "tpl-MNI152NLin6Asym_atlas-mine_dseg.nii.gz"
    labels = np.arange(101, dtype=np.int16).reshape(101, 1, 1)
    nib.save(nib.Nifti1Image(labels, np.eye(4)), mine)
    metadata = fetch(AtlasSection(parcels=100, networks=7, volume=mine), tmp_path / "out")
    written = nib.load(tmp_path / "out/atlas_volume.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels)
    assert metadata["space"] == "MNI152NLin6Asym"
    assert metadata["source"].endswith("files named in the config: atlas_volume.nii.gz")
    assert mine.name in metadata["inputs"]
    assert "atlas_fsLR.npz" in metadata["files"]  # the others are those of the source


def test_a_named_file_with_other_labels_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "atlas.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(451, dtype=np.int16).reshape(451, 1, 1), np.eye(4)), mine)
    with pytest.raises(
        ValueError, match=r"should hold each of the labels 0\.\.400; 401 is too many \(and 49 more\)"
    ):
        fetch(AtlasSection(volume=mine), tmp_path / "out")
    few = np.where(np.arange(401) == 17, 0, np.arange(401)).astype(np.int16)
    nib.save(nib.Nifti1Image(few.reshape(401, 1, 1), np.eye(4)), mine)
    with pytest.raises(ValueError, match=r"labels 0\.\.400; 17 is missing: take"):
        fetch(AtlasSection(volume=mine), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_atlas_of_7_networks_with_names_of_17_is_refused(tmp_path: Path) -> None:
    seven = tmp_path / "Schaefer2018_100Parcels_7Networks_order.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(101, dtype=np.int16).reshape(101, 1, 1), np.eye(4)), seven)
    with pytest.raises(ValueError, match=r"in the order of 7 networks, the names .* in that of 17"):
        fetch(AtlasSection(parcels=100, networks=17, volume=seven), tmp_path / "out")
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"17Networks_{side}H_Vis_{i}" for side in "LR" for i in range(50)))
    with pytest.raises(ValueError, match=r"but atlas\.networks is 7"):
        fetch(
            AtlasSection(source="files", parcels=100, networks=7, volume=seven, names=names), tmp_path / "out"
        )


def with_subcortex(folder: Path) -> tuple[Path, Path, Path]:
    """Schaefer 100 behind 16 regions of one voxel each: volume, CIFTI labels and label list as Tian's lab has them."""
    atlas = packages.from_packages(AtlasSection(parcels=100, networks=7))
    regions = [f"HIP-part{i}-{side}h" for side in "rl" for i in range(8)]
    names = [*regions, *atlas.names]
    volume, affine = atlas.volume()
    volume = np.where(volume > 0, volume + 16, 0).astype(np.float32)
    volume[np.arange(16), 0, 0] = np.arange(1, 17)
    image = folder / "Schaefer_7Networks_order_Tian_3T_MNI152NLin2009cAsym_1mm.nii.gz"
    nib.save(nib.Nifti1Image(volume, affine), image)
    inside = np.zeros(GRAYORDINATES_SHAPE, bool)
    inside[30:46, 50, 40] = True
    models = nib.cifti2.BrainModelAxis.from_mask(inside, "brain_stem", GRAYORDINATES_AFFINE)
    labels = [np.arange(1, 17)]
    for side, values in zip(("cortex_left", "cortex_right"), atlas.surface("fsLR"), strict=True):
        models += nib.cifti2.BrainModelAxis.from_mask(values > 0, side)
        labels.append(values[values > 0] + 16)
    table = {0: ("???", (1, 1, 1, 0))} | {i: (name, (0, 0, 0, 1)) for i, name in enumerate(names, 1)}
    header = (nib.cifti2.LabelAxis(["atlas"], [table]), models)
    cifti = folder / "atlas.dlabel.nii"
    nib.save(nib.Cifti2Image(np.concatenate(labels)[None].astype(np.float32), header), cifti)
    listed = folder / "label.txt"
    listed.write_text("".join(f"{name}\n{i} 1 2 3 255\n" for i, name in enumerate(names, 1)))
    return image, cifti, listed


def test_subcortex_comes_before_the_cortex(tmp_path: Path) -> None:
    volume, cifti, names = with_subcortex(tmp_path)
    atlas = AtlasSection(
        source="files", parcels=100, networks=7, subcortex="S1", volume=volume, cifti=cifti, names=names
    )
    metadata = fetch(atlas, tmp_path / "out")
    assert metadata["label"] == "Schaefer7n100pTianS1"
    assert metadata["names"][:2] == ["HIP-part0-rh", "HIP-part1-rh"]
    assert metadata["names"][16] == "7Networks_LH_Vis_1"
    assert metadata["hemisphere"][:16] == [1] * 8 + [0] * 8
    assert metadata["space"] == "MNI152NLin2009cAsym"
    # a series that holds the label of every grayordinate
    image = nib.load(cifti)
    values = np.asarray(image.dataobj) + np.arange(3)[:, None]
    axes = nib.cifti2.SeriesAxis(0, 2.0, 3), image.header.get_axis(1)
    nib.save(nib.Cifti2Image(values.astype(np.float32), axes), tmp_path / "run.dtseries.nii")
    known = load_atlas(tmp_path / "out")
    found = parcellate.parcellate_file(tmp_path / "run.dtseries.nii", known)
    np.testing.assert_array_equal(found.series[:, 0], np.arange(1, 117))
    np.testing.assert_array_equal(found.coverage, 1)
    known.volume()  # holds what it should
    label, columns, described = harmonics.compute(tmp_path / "out", 3)
    assert (label, columns["name"]) == (metadata["label"], metadata["names"])
    modes = np.stack([columns[f"mode_{k:03d}"] for k in (1, 2, 3)])
    assert (modes[:, :16] == 0).all()
    assert (modes[:, 16:] != 0).all()
    assert described["without_cortex"] == metadata["names"][:16]


def test_the_rule_makes_what_the_named_files_give(root: Path, tmp_path: Path) -> None:
    volume, _, names = with_subcortex(tmp_path)
    atlas = {"source": "files", "parcels": 100, "networks": 7, "subcortex": "S1"}
    atlas |= {"volume": str(volume), "names": str(names)}
    done = snakemake(root, tmp_path, atlas, "results/templates/atlas.json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/templates/atlas_volume.nii.gz").exists()
    with pytest.raises(ValueError, match=r"not available on fsLR-32k.*set atlas\.cifti"):
        harmonics.compute(tmp_path / "results/templates", 3)


def test_another_number_of_names_than_the_config_tells_is_refused(tmp_path: Path) -> None:
    volume, _, names = with_subcortex(tmp_path)
    files = {"source": "files", "networks": 7, "volume": volume, "names": names}
    with pytest.raises(
        ValueError, match=r"holds 116 names, but atlas.parcels is 100 .*set atlas.subcortex to S1"
    ):
        fetch(AtlasSection(parcels=100, **files), tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"holds 116 names, but 50 of the subcortex and atlas.parcels is 100"
    ):
        fetch(AtlasSection(parcels=100, subcortex="S3", **files), tmp_path / "out")
    lines = read_names(names)
    names.write_text("\n".join([*lines[16:], *lines[:16]]))
    with pytest.raises(ValueError, match=r"7Networks_LH_Vis_1 in row 1, where atlas.subcortex asks for 16"):
        fetch(AtlasSection(parcels=100, subcortex="S1", **files), tmp_path / "out")
    with pytest.raises(ValueError, match="neither the packages nor TemplateFlow carry Tian's subcortex"):
        AtlasSection(subcortex="S1")


def test_an_atlas_whose_name_tells_no_space_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(101, dtype=np.int16).reshape(101, 1, 1), np.eye(4)), mine)
    with pytest.raises(ValueError, match="its name states no standard space"):
        fetch(AtlasSection(parcels=100, volume=mine), tmp_path / "out")


@pytest.mark.parametrize("networks", [7, 17])
def test_tians_own_files(shared, tmp_path: Path, networks) -> None:
    stem = f"data/atlas/Schaefer2018_400Parcels_{networks}Networks_order_Tian_Subcortex_S3"
    cifti = shared(f"{stem}.dlabel.nii")
    listed = shared("data/atlas/Schaefer2018_400Parcels_17Networks_order_Tian_Subcortex_S3_label.txt")
    cortex = shared(f"data/atlas/Schaefer2018_400Parcels_{networks}Networks_order.txt")
    names = tmp_path / "names.txt"
    names.write_text("\n".join([*read_names(listed)[:50], *read_names(cortex)]))
    volume = shared(f"{stem}_3T_MNI152NLin2009cAsym_2mm.nii.gz") if networks == 7 else None
    atlas = AtlasSection(
        source="files", networks=networks, subcortex="S3", volume=volume, cifti=cifti, names=names
    )
    metadata = fetch(atlas, tmp_path / "out")
    assert len(metadata["names"]) == 450
    assert metadata["names"][:2] == ["HIP-head-m-rh", "HIP-head-l-rh"]
    known = load_atlas(tmp_path / "out")
    image = nib.load(cifti)
    values = np.asarray(image.dataobj) + np.arange(2)[:, None]
    axes = nib.cifti2.SeriesAxis(0, 2.0, 2), image.header.get_axis(1)
    nib.save(nib.Cifti2Image(values.astype(np.float32), axes), tmp_path / "run.dtseries.nii")
    found = parcellate.parcellate_file(tmp_path / "run.dtseries.nii", known)
    np.testing.assert_array_equal(found.series[:, 0], np.arange(1, 451))
    if volume:
        assert metadata["space"] == "MNI152NLin2009cAsym"
        known.volume()


@pytest.mark.parametrize("networks", [7, 17])
@pytest.mark.parametrize("parcels", [100, 300, 500, 1000])
def test_any_size_comes_with_its_names_and_says_what_it_lacks(parcels: int, networks: int) -> None:
    found = packages.from_packages(AtlasSection(parcels=parcels, networks=networks))  # type: ignore[arg-type]
    assert len(found.names) == parcels
    assert all(name.startswith(f"{networks}Networks_") for name in found.names)
    assert "fsaverage5" in found.labels_surface
    there = {"volume": found.labels_volume is not None, "fsLR": "fsLR" in found.labels_surface}
    assert set(found.missing) == {FILES[grid] for grid, known in there.items() if not known}
    for labels in found.labels_surface.values():
        assert max(side.max() for side in labels) == parcels


def test_orders_of_7_and_17_networks_name_the_same_places() -> None:
    seven = packages.from_packages(AtlasSection(networks=7))
    seventeen = packages.from_packages(AtlasSection(networks=17))
    to_17 = packages.order_7_to_17(400)
    for a, b in zip(seven.surface("fsLR"), seventeen.surface("fsLR"), strict=True):
        np.testing.assert_array_equal(to_17[a], b)


def test_a_killed_fetch_gives_the_same_bytes_when_run_again(check_kill) -> None:
    atlas = settings_file({"parcels": 100, "networks": 7})
    check_kill("bhx_prep.atlas.fetch", "Path.replace", 9, lambda out: ["--atlas", atlas, "--out", str(out)])


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    first = fetch(AtlasSection(parcels=100), tmp_path / "a")
    for kept in (packages.head_mask, packages.read_annot, packages.order_7_to_17):
        kept.cache_clear()
    assert fetch(AtlasSection(parcels=100), tmp_path / "b") == first
    assert (tmp_path / "a/atlas.json").read_bytes() == (tmp_path / "b/atlas.json").read_bytes()
