"""Lists of ROI names in the forms that atlases come in."""

from __future__ import annotations

from pathlib import Path

import pytest

from bhx_model.errors import DataError
from bhx_prep.atlas.label_lists import LabelList, read_label_list

NAMES = ("Left-Thalamus", "Area 44", "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Left-Thalamus\nArea 44\nx\n", LabelList(NAMES)),
        ("name\r\nLeft-Thalamus\r\nArea 44\r\nx", LabelList(NAMES)),
        ("Left-Thalamus\rArea 44\rx\r", LabelList(NAMES)),
        ("Frontal pole, left\nx\n", LabelList(("Frontal pole, left", "x"))),
        ("#1\n#2\n", LabelList(("#1", "#2"))),
        ("1\n2\n", LabelList(("1", "2"))),
        # FreeSurfer's and CBIG's lookup tables
        (
            "#No. Label Name: R G B A\n\n0 Unknown 0 0 0 0\n10  Left-Thalamus  0 118 14 0\n44 Area 44 1 2 3 0\n7 x 1 2 3 0",
            LabelList(("x", "Left-Thalamus", "Area 44"), (7, 10, 44)),
        ),
        ("2\tArea 44\t120\t18\t131\t0\n1\tLeft-Thalamus\t1\t2\t3\t0\n3\tx\t1\t2\t3\t0", LabelList(NAMES, (1, 2, 3))),
        # tables with a header: BIDS, XCP-D, nilearn
        (
            "index\tname\tcolor\n0\tBackground\t#000\n1\tLeft-Thalamus\t#fff\n2\tArea 44\tn/a\n3\tx\tn/a",
            LabelList(NAMES, (1, 2, 3)),
        ),
        ("index,label\n1,Left-Thalamus\n3,x\n2,Area 44\n", LabelList(NAMES, (1, 2, 3))),
        ('index;"name"\n5;"Left; one"\n', LabelList(("Left; one",), (5,))),
        (",name\n0,Left-Thalamus\n1,Area 44\n2,x\n", LabelList(NAMES)),
        ("name\tnetwork\nLeft-Thalamus\tA\nArea 44\tB\nx\tC\n", LabelList(NAMES)),
        # R, pandas, DiFuMo, CBIG's centroids, SPM's AAL, one line
        ('"x"\n"1" "Left-Thalamus"\n"2" "Area 44"\n"3" "x"\n', LabelList(NAMES, (1, 2, 3))),
        ('"","x"\n"1","Left-Thalamus"\n"2","Area 44"\n"3","x"\n', LabelList(NAMES, (1, 2, 3))),
        (",0\n0,Left-Thalamus\n1,Area 44\n2,x\n", LabelList(NAMES, (0, 1, 2))),
        ("Component,Difumo_names,GM\n1,Left-Thalamus,.1\n2,Area 44,.2\n3,x,.3\n", LabelList(NAMES, (1, 2, 3))),
        ("ROI Label,ROI Name,R\n1,Left-Thalamus,-32\n3,x,8\n2,Area 44,-3\n", LabelList(NAMES, (1, 2, 3))),
        ("label,region\n1,Left-Thalamus\n3,x\n2,Area 44\n", LabelList(NAMES, (1, 2, 3))),
        ("T\tLeft-Thalamus\t10\nX\tx\t30\nA\tArea_44\t20\n",
         LabelList(("Left-Thalamus", "Area_44", "x"), (10, 20, 30))),
        ("Left-Thalamus,Area 44,x\n", LabelList(NAMES)),
        ("Gyrus, pars a\nGyrus, pars b\n", LabelList(("Gyrus, pars a", "Gyrus, pars b"))),
        # Connectome Workbench, ITK-SNAP, AAL
        ("???\n0 1 1 1 0\nArea 44\n2 1 2 3 255\nx\n1 1 2 3 255\n", LabelList(("x", "Area 44"), (1, 2))),
        (
            '# ITK-SnAP\n0 0 0 0 0 0 0 "Clear Label"\n1 255 0 0 1 1 1 "Area 44"\n2 9 9 9 0.5 1 1 "x"',
            LabelList(("Area 44", "x"), (1, 2)),
        ),
        ("2001 Precentral_L 2001\n2002 Precentral_R 2002\n", LabelList(("Precentral_L", "Precentral_R"), (2001, 2002))),
        ("1 a\n2 b\n", LabelList(("a", "b"), (1, 2))),
    ],
)  # fmt: skip
def test_names_and_numbers_are_read(tmp_path: Path, text: str, expected: LabelList) -> None:
    path = tmp_path / "names.txt"
    for encoded in (text.encode(), text.encode("utf-8-sig"), text.encode("utf-16")):
        path.write_bytes(encoded)
        assert read_label_list(path) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\nb\na\n", "holds a name twice: 'a'"),
        (b"1\ta\n1\tb\n", "holds a number twice: '1'"),
        (b"", "holds no list of ROI names"),
        (b"['a', 'b']\n", "holds no list of ROI names"),
        (b"ID,Hem,Area\nA1,L,3\nA2,L,4\n", "has 3 columns and none is called `name`"),
        (b"PK\x03\x04", "Excel workbook"),
        (b"index\tname\n1\ta\n2\t\n", r"ROI 2 has no name"),
        (b"index\tname\n1\ta\nx\tb\n", "'x' in column index is no number"),
        (b"1 a\n2 b\n3 c\nd\n", "most lines begin with a number, but not 'd'"),
        (b"1 10\n2 20\n", "numbers only"),
        ("Hirnst\u00e4mme".encode("latin-1"), "holds no list of ROI names"),
        (b"a\0b", "holds no list of ROI names"),
        (b'index,name\n1,"a\n2,b\n', "remove stray quotes"),
    ],
)
def test_what_is_no_list_of_names_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as refused:
        read_label_list(path)
    assert len(str(refused.value)) - len(str(path)) < 150


def test_a_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.txt cannot be read"):
        read_label_list(tmp_path / "absent.txt")
