"""From a batch's features to its pictures, and from a cohort's batches to its table and page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import browser
import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import review_files
from settings_files import settings_file

from bhx_prep.config.cohorts import CohortSection
from bhx_prep.features.table_columns import QC_SCHEMA
from bhx_prep.ingest import index
from bhx_prep.io.spaces import MNI152
from bhx_prep.review import bundle, carpet, collect, draw, page

SPACE = MNI152[0]
EVIL = '</script><img src=x onerror="document.title=1">'


def save(values: np.ndarray, path: Path, tr_s: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, review_files.AFFINE)
    if tr_s:
        image.header.set_zooms((review_files.MM,) * 3 + (tr_s,))
        image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


@pytest.fixture(scope="module")
def ward(tmp_path_factory) -> Path:
    """Two subjects of derivatives, the second without BOLD reference, with the features' tables of them."""
    root = tmp_path_factory.mktemp("ward")
    derivatives = root / "derivatives"
    described = {
        "Name": "t",
        "BIDSVersion": "1.8.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "x"}],
    }
    derivatives.mkdir()
    (derivatives / "dataset_description.json").write_text(json.dumps(described))
    for name in ("sub-01.html", "sub-01_ses-a & b.html", "sub-03.html", "index.html"):
        (derivatives / name).write_text("<html></html>")
    head, mask = review_files.head(), review_files.brain_mask().astype(np.uint8)
    checked, carpets = [], []
    for label in ("01", "02"):
        anat, func = (derivatives / f"sub-{label}" / name for name in ("anat", "func"))
        stem = f"sub-{label}_space-{SPACE}"
        save(head, anat / f"{stem}_desc-preproc_T1w.nii.gz")
        save(mask, anat / f"{stem}_desc-brain_mask.nii.gz")
        (anat / f"sub-{label}_desc-quality_T1w.json").write_text(
            '{"norm_dice": 0.97, "brain_volume_ml": 1234, "key": 3, "status": 4, "who": 5, "</script>": 6}'
        )
        run = f"sub-{label}_task-rest"
        frames = np.repeat(head[..., None], 5, axis=3).astype(np.int16)
        save(frames, func / f"{run}_space-{SPACE}_desc-preproc_bold.nii.gz", 2.0)
        (func / f"{run}_space-{SPACE}_desc-preproc_bold.json").write_text('{"RepetitionTime": 2.0}')
        save(mask, func / f"{run}_space-{SPACE}_desc-brain_mask.nii.gz")
        if label == "01":
            save(head, func / f"{run}_space-{SPACE}_boldref.nii.gz")
            (func / f"{run}_desc-quality_bold.json").write_text('{"coreg_dice": 0.9, "notes": "text"}')
        table = pd.DataFrame(
            {"dvars": [np.nan, 1, 2, 3, 4], "framewise_displacement": [np.nan, 0.1, 0.2, 0.3, 0.4]}
        )
        table.to_csv(func / f"{run}_desc-confounds_timeseries.tsv", sep="\t", na_rep="n/a", index=False)
        ok = {"cohort": "ward", "subject": label, "status": "ok", "synthetic": False, "notes": []}
        checked.append({**ok, "key": f"ward_{run}", "modality": "bold", "fd_mm": [None, 0.1, 0.2, 0.3, 0.4],
                        "kept": [True] * 5, "mean_fd_mm": 0.25, "tr_s": 2.0, "n_frames": 5})  # fmt: skip
        checked.append({**ok, "key": f"ward_sub-{label}", "modality": "t1w"})
        carpets.append(carpet.row(f"ward_{run}", np.arange(40, dtype=np.uint8).reshape(8, 5)))
    checked[0] |= {"decision": "keep", "overruled": "moves: /home/smith/data/sub-01_x.tsv", "notes": [EVIL]}
    checked[2] |= {"status": "excluded", "reason": f"{EVIL} in /home/smith/raw/x.nii.gz"}
    checked[3] |= {"status": "excluded", "decision": "exclude", "reason": "excluded by a decision: seen"}
    features = root / "results/ward/features/batch-00000"
    features.mkdir(parents=True)
    rows = [dict.fromkeys(QC_SCHEMA.names) | row for row in checked]
    pq.write_table(pa.Table.from_pylist(rows, QC_SCHEMA), features / "qc.parquet")
    pq.write_table(pa.Table.from_pylist(carpets, carpet.SCHEMA), features / "carpets.parquet")
    pq.write_table(
        index.build("ward", CohortSection(input="fmriprep", root=derivatives)), root / "index.parquet"
    )
    review_files.write_templates(root / "templates")
    return root


def run_draw(ward: Path, out: Path) -> int:
    return draw.main([
        *("--cohort", "ward", "--subjects", settings_file(["01", "02"]), "--index", str(ward / "index.parquet")),
        *("--space", SPACE, "--features", str(ward / "results/ward/features/batch-00000")),
        *("--templates", str(ward / "templates"), "--out", str(out)),
    ])  # fmt: skip


def run_collect(ward: Path, decisions=()) -> int:
    return collect.main([
        *("--cohort", "ward", "--index", str(ward / "index.parquet"), "--features", str(ward / "results/ward/features")),
        *("--batches", settings_file(["00000"]), "--decisions", settings_file(list(decisions))),
        *("--reports", str(ward / "derivatives")),
        *("--out", str(ward / "results/ward")),
    ])  # fmt: skip


@pytest.fixture(scope="module")
def drawn(ward: Path) -> Path:
    folder = ward / "results/ward/qc"
    assert run_draw(ward, folder / "batch-00000") == 0
    decided = {"modality": "bold", "key": "ward_sub-01_task-rest", "decision": "keep"}
    decided |= {"who": "ab", "when": "2026-01-31", "why": EVIL}
    assert run_collect(ward, [decided]) == 0
    return folder


def test_every_scan_has_its_pictures(drawn: Path):
    found: dict[tuple[str, str], list[str]] = {}
    for key, modality, kind, picture in bundle.read(drawn / "batch-00000.js"):
        assert picture.startswith("<svg ")
        found.setdefault((key, modality), []).append(kind)
    assert {place: sorted(kinds) for place, kinds in found.items()} == {
        ("ward_sub-01_task-rest", "bold"): ["carpet", "coregistration", "mask", "normalisation"],
        ("ward_sub-01", "t1w"): ["mask", "normalisation"],
        ("ward_sub-02_task-rest", "bold"): ["carpet", "coregistration", "mask", "normalisation"],
        ("ward_sub-02", "t1w"): ["mask", "normalisation"],
    }


def test_equal_inputs_give_equal_pictures(ward: Path, drawn: Path, tmp_path: Path):
    assert run_draw(ward, tmp_path / "again") == 0
    assert (tmp_path / "again.js").read_bytes() == (drawn / "batch-00000.js").read_bytes()


def test_an_image_that_cannot_be_drawn_costs_no_other(ward: Path, drawn: Path, tmp_path: Path, caplog):
    copy = shutil.copytree(ward, tmp_path / "copy", ignore=shutil.ignore_patterns("qc"))
    rows = pq.read_table(copy / "index.parquet").to_pylist()
    torn = copy / "torn.nii.gz"
    torn.write_bytes(b"\x1f\x8b no image")
    rows = [row | {"path": str(torn.with_name(f"sub-01_space-{SPACE}_desc-preproc_T1w.nii.gz"))}
            if row["key"] == "ward_sub-01" else row for row in rows]  # fmt: skip
    torn.rename(torn.with_name(f"sub-01_space-{SPACE}_desc-preproc_T1w.nii.gz"))
    pq.write_table(pa.Table.from_pylist(rows, index.SCHEMA), copy / "index.parquet")
    assert run_draw(copy, tmp_path / "some") == 0
    kinds = [(key, kind) for key, _, kind, _ in bundle.read(tmp_path / "some.js")]
    assert len(kinds) == 12 - 2 - 1  # neither of the T1w, nor the BOLD on it
    assert "ward_sub-01 t1w is not drawn" in caplog.text


def test_the_table_has_xcpd_s_names_and_what_people_decided(drawn: Path):
    table = pq.read_table(drawn.parent / "qc.parquet")
    assert {"mean_fd", "coreg_dice", "norm_dice", "num_retained_volumes", "mean_fd_mm"} <= set(
        table.column_names
    )
    rows = {(row["subject"], row["modality"]): row for row in table.to_pylist()}
    kept = rows["01", "bold"]
    assert (kept["state"], kept["task"], kept["who"], kept["when"]) == (
        "kept by decision",
        "rest",
        "ab",
        "2026-01-31",
    )
    assert (kept["coreg_dice"], kept["mean_fd"], kept["mean_dvars_initial"]) == pytest.approx(
        (0.9, 0.25, 2.5)
    )
    assert rows["01", "t1w"]["norm_dice"] == 0.97
    assert rows["01", "t1w"]["brain_volume_ml"] == 1234
    # a file beside the derivatives adds numbers, and changes nothing that is known of a scan
    assert (rows["01", "t1w"]["key"], rows["01", "t1w"]["status"], rows["01", "t1w"]["who"]) == (
        "ward_sub-01", "ok", None
    )  # fmt: skip
    assert rows["01", "t1w"]["</script>"] == 6
    assert [rows["02", modality]["state"] for modality in ("bold", "t1w")] == [
        "excluded",
        "excluded by decision",
    ]
    counts = json.loads((drawn / "counts.json").read_text())
    assert counts == {
        "cohort": "ward",
        "scans": {
            "bold": {"excluded": 1, "kept by decision": 1},
            "t1w": {"excluded by decision": 1, "used": 1},
        },
    }


def test_the_page_holds_no_folder_and_no_address(drawn: Path):
    text = (drawn / "index.html").read_text()
    assert "smith" not in text
    assert "http://" not in text.replace("http-equiv", "")
    assert "https://" not in text
    assert EVIL not in text
    assert text.count("</script>") == text.count("<script") == 2


def test_a_page_of_series_alone_has_no_pictures_but_its_numbers(ward: Path, tmp_path: Path):
    copy = shutil.copytree(ward, tmp_path / "copy", ignore=shutil.ignore_patterns("qc"))
    assert run_collect(copy) == 0
    table = pq.read_table(copy / "results/ward/qc.parquet")
    assert table["mean_fd_mm"].to_pylist()[0] == 0.25
    text = (
        (copy / "results/ward/qc/index.html").read_text().partition('id="data">')[2].partition("</script>")[0]
    )
    data = json.loads(text)
    assert {row[data["fields"].index("batch")] for row in data["rows"]} == {None}


def test_folders_are_cut_from_sentences():
    assert (
        page.without_folders("no /data/smith/x.nii.gz in a/b/c: see ~/x/log") == "no x.nii.gz in c: see log"
    )
    assert page.without_folders("mean / sd is 3/4") == "mean / sd is 3/4"


DRIVE = """
(async () => {
const report = {};
const until = async condition => { while (!condition()) await new Promise(done => setTimeout(done, 20)); };
const labels = () => [...document.querySelectorAll("tbody tr")].map(r => r.dataset.key + " " + r.dataset.modality);
const column = name => [...document.querySelectorAll("#list th")].find(th => th.textContent.startsWith(name));
const input = (made, value) => { made.value = value; made.dispatchEvent(new Event("input")); };
report.first = labels();
column("mean_fd_mm").click(); column("mean_fd_mm").click();
report.down = [column("mean_fd_mm").getAttribute("aria-sort"), ...labels()];
column("modality").click();
report.byModality = labels();
$("add").click();
input(document.querySelector("#numbers select"), "coreg_dice");
input(document.querySelector("#numbers input"), "0.5");
report.filtered = [...labels(), $("count").textContent];
document.querySelector("#numbers button").click();
input($("state"), "excluded");
report.excluded = labels();
input($("state"), "");
input($("text"), "sub-02");
report.text = labels();
input($("text"), "");
let saved = null;
const create = URL.createObjectURL.bind(URL);
URL.createObjectURL = blob => { if (blob.type.includes("tab")) saved = blob; return create(blob); };
$("download").click();
report.nothing = [saved, $("changed").textContent];
document.querySelector('tr[data-key="ward_sub-01_task-rest"]').click();
$("exclude").click();
report.unsaid = $("changed").textContent;
$("why").value = 'a "ghost"\\t</td>'; $("exclude").click();
$("who").value = "cd";
$("download").click();
const shown = image => image.complete && image.naturalWidth > 0;
await until(() => document.querySelectorAll("#scan img").length === 4);
await until(() => [...document.querySelectorAll("#scan img")].every(shown));
report.pictures = [...document.querySelectorAll("#scan img")].map(i => [i.dataset.kind, shown(i)]);
await until(() => document.querySelectorAll("td.small img:not([hidden])").length === 4);
await until(() => [...document.querySelectorAll("td.small img")].every(shown));
report.links = [...document.querySelectorAll("#scan a")].map(a => [a.textContent, a.getAttribute("href")]);
report.title = document.title;
report.table = await saved.text();
return JSON.stringify(report);
})()
"""


@pytest.fixture(scope="module")
def driven(drawn: Path) -> Iterator[dict]:
    """What the page does in a browser."""
    with browser.browser() as tab:
        tab.show(1200)
        tab.open(drawn / "index.html")
        axe = tab.run(browser.axe() + "; 0") if find_spec("axe_playwright_python") else None
        report = json.loads(tab.run(DRIVE))
        if axe is not None:
            report["violations"] = [browser.violations(tab)]
            tab.show(500, dark=True)
            report["violations"].append(
                browser.violations(tab, ["color-contrast", "scrollable-region-focusable"])
            )
        report["errors"] = tab.errors
        yield report


BOLD = ["ward_sub-01_task-rest bold", "ward_sub-02_task-rest bold"]
T1W = ["ward_sub-01 t1w", "ward_sub-02 t1w"]


def test_the_page_sorts_with_what_is_not_known_last(driven: dict):
    assert driven["first"] == [BOLD[0], T1W[0], BOLD[1], T1W[1]]
    assert driven["down"] == ["descending", *BOLD, *T1W]
    assert driven["byModality"] == [*BOLD, *T1W]


def test_the_page_filters_by_numbers_states_and_text(driven: dict):
    assert driven["filtered"] == [BOLD[0], "1 of 4 scans"]
    assert driven["excluded"] == [BOLD[1]]
    assert driven["text"] == [BOLD[1], T1W[1]]


def test_the_page_shows_the_pictures_of_a_scan(driven: dict):
    assert driven["pictures"] == [
        [kind, True] for kind in ("mask", "normalisation", "coregistration", "carpet")
    ]
    assert driven["title"] == "Scans of ward"  # nothing in the data ran


def test_the_page_leads_to_what_fmriprep_wrote_of_a_subject(driven: dict):
    up = "../../../derivatives"
    assert driven["links"] == [
        ["sub-01.html", f"{up}/sub-01.html"],
        ["sub-01_ses-a & b.html", f"{up}/sub-01_ses-a%20%26%20b.html"],
    ]


def test_axe_finds_nothing_on_the_page(driven: dict):
    if "violations" not in driven:
        browser.axe()  # says why it is not there
    assert driven["violations"] == [[], []]
    assert driven["errors"] == []


def test_every_scan_with_an_image_has_a_thumbnail(drawn: Path):
    found = [(key, modality, kind) for key, modality, kind, _ in bundle.read(drawn / "batch-00000.small.js")]
    assert found == [
        (key, modality, "thumbnail")
        for key, modality in (
            ("ward_sub-01_task-rest", "bold"),
            ("ward_sub-01", "t1w"),
            ("ward_sub-02_task-rest", "bold"),
            ("ward_sub-02", "t1w"),
        )
    ]
    assert (drawn / "batch-00000.small.js").stat().st_size < 4 * 15_000


def test_the_page_offers_its_decisions_as_lines_of_the_table(driven: dict, tmp_path: Path):
    from bhx_prep.review import decisions

    assert driven["nothing"][0] is None
    assert driven["unsaid"] == "say why first"
    (tmp_path / "d.tsv").write_text(driven["table"])
    (one,) = decisions.read(tmp_path / "d.tsv", ["ward"])
    assert one.named == "ward sub-01_task-rest bold"
    assert (one.decision, one.who, one.why) == ("exclude", "cd", 'a "ghost" </td>')
