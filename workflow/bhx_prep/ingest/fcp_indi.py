"""Data sets in the public bucket of the International Neuroimaging Data-sharing Initiative, for ``bhx fetch``.

The bucket ``fcp-indi`` can be read and listed without an account. Every file has an address, ``<bucket>/<key>``; the
listing of a folder is S3's (``?list-type=2&prefix=..&delimiter=/``). A copy of the bucket on a plain web server, whose
folders are pages of links, serves as well.
"""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlencode

from bhx_model.errors import ConfigError, DataError
from bhx_prep.io import notes
from bhx_prep.io.download import Downloads, RemoteFile

#: Where the bucket is.
BUCKET: Final = "https://s3.amazonaws.com/fcp-indi"

#: Folders of a subject that BHX and fMRIPrep read; diffusion images are left out.
FOLDERS: Final = ("anat", "func", "fmap")
#: Endings of the tables and sidecars beside the subjects' folders; archives are left out.
BESIDE: Final = ("", ".json", ".tsv", ".csv", ".txt", ".md", ".bidsignore")

_KEY = re.compile(r"[A-Za-z0-9_.+ -]+(/[A-Za-z0-9_.+ -]+)*")


@dataclass(frozen=True)
class RoiTables:
    """ROI x time tables of the Preprocessed Connectomes Project.

    Attributes
    ----------
    folder : str
        Key of the release.
    table : str
        Table of phenotypes below it; its column ``FILE_ID`` names each subject's files.
    derivatives, pipelines, strategies : tuple of str
        What there is; the first is the default.
    """

    folder: str
    table: str
    derivatives: tuple[str, ...]
    pipelines: tuple[str, ...]
    strategies: tuple[str, ...]


@dataclass(frozen=True)
class Offer:
    """What can be fetched of a data set.

    Attributes
    ----------
    raw : str
        Key of the folder with a BIDS dataset per site.
    tables : tuple of str
        Keys of tables of phenotypes that go with the raw data.
    rois : RoiTables, optional
    elsewhere : mapping of str to str
        Derivatives that are not public, and how they are had, each a sentence.
    """

    raw: str
    tables: tuple[str, ...] = ()
    rois: RoiTables | None = None
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    @property
    def derivatives(self) -> tuple[str, ...]:
        """All that may be asked for, the default first."""
        return (*(self.rois.derivatives if self.rois else ()), "raw")


@dataclass(frozen=True)
class Wanted:
    """Which subjects: the first `n` or those of `ids`; all when both are None."""

    n: int | None = None
    ids: tuple[str, ...] | None = None

    @classmethod
    def of(cls, words: Sequence[str]) -> Wanted:
        """From the command line: one number of up to four digits is how many, all else are ids.

        Raises
        ------
        ConfigError
            If that number is not positive.
        """
        if not words or list(words) == ["all"]:
            return cls()
        if len(words) == 1 and re.fullmatch(r"[1-9]\d{0,3}", words[0]):
            return cls(n=int(words[0]))
        if len(words) == 1 and re.fullmatch(r"-\d+|0+", words[0]):
            raise ConfigError(f"--subjects: {words[0]} is no number of subjects: give 1 or more, or ids")
        return cls(ids=tuple(dict.fromkeys(word.removeprefix("sub-") for word in words)))


@dataclass(frozen=True)
class Folder:
    """A folder of the bucket: names of the folders in it, and files with their sizes, None where unknown."""

    folders: tuple[str, ...]
    files: Mapping[str, int | None]


class Bucket:
    """The bucket, or a copy of it.

    Parameters
    ----------
    address : str
    downloads : Downloads
    """

    def __init__(self, address: str, downloads: Downloads):
        self.address, self.downloads = address.rstrip("/"), downloads

    def url(self, key: str) -> str:
        """Address of a file."""
        return f"{self.address}/{quote(key)}"

    def file(self, key: str, below: str, out: Path, size: int | None = None) -> RemoteFile:
        """A file to download; its path below `out` is that of its key below `below`.

        Raises
        ------
        DataError
            If the key could lead out of `out`.
        """
        if not _KEY.fullmatch(key) or ".." in key.split("/"):
            raise DataError(f"the source lists a file of an odd name, {notes.quote(key)}")
        return RemoteFile(self.url(key), out / Path(key).relative_to(below), size)

    def list(self, key: str) -> Folder:
        """What is in a folder.

        Raises
        ------
        DataError
            If the server does not list it, or it is empty.
        SiteError
            If the server cannot be reached.
        """
        try:
            pages = list(self._pages(f"{key.rstrip('/')}/"))
            folders = tuple(sorted(name for page in pages for name in page.folders))
            files = {name: size for page in pages for name, size in page.files.items()}
        except _NotS3Error:
            content = self.downloads.read(f"{self.url(key)}/").decode("utf-8", "replace")
            links = _Links()
            links.feed(content)
            folders = tuple(sorted(x.rstrip("/") for x in links.names if x.endswith("/")))
            files = {x: None for x in sorted(links.names) if not x.endswith("/")}
        if not folders and not files:
            raise DataError(f"{self.address} has nothing in the folder {key}, or does not list it")
        return Folder(folders, files)

    def _pages(self, prefix: str) -> Iterator[Folder]:
        token = None
        while True:
            query = {"list-type": "2", "prefix": prefix, "delimiter": "/"}
            if token:
                query["continuation-token"] = token
            try:
                root = ET.fromstring(self.downloads.read(f"{self.address}/?{urlencode(query)}"))
            except (ET.ParseError, DataError) as error:
                raise _NotS3Error from error
            space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
            if root.tag != f"{space}ListBucketResult":
                raise _NotS3Error
            names = (e.findtext(f"{space}Prefix", "") for e in root.findall(f"{space}CommonPrefixes"))
            files = {
                e.findtext(f"{space}Key", "").removeprefix(prefix): _bytes(e.findtext(f"{space}Size", ""))
                for e in root.findall(f"{space}Contents")
            }
            files.pop("", None)  # the folder itself
            yield Folder(tuple(name.removeprefix(prefix).rstrip("/") for name in names), files)
            token = root.findtext(f"{space}NextContinuationToken")
            if not token or root.findtext(f"{space}IsTruncated") != "true":
                return


def _bytes(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


class _NotS3Error(Exception):
    """The server does not list folders as S3 does."""


class _Links(HTMLParser):
    """Names in a folder, from the page of links that web servers make of it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep links to what is directly below."""
        name = unquote(dict(attrs).get("href") or "") if tag == "a" else ""
        if re.fullmatch(r"[^/?#:]+/?", name) and not name.startswith("."):
            self.names.add(name)


def raw_files(bucket: Bucket, offer: Offer, wanted: Wanted, out: Path) -> list[RemoteFile]:
    """The raw data of some subjects: their images and sidecars, and the tables and sidecars of their sites.

    Parameters
    ----------
    bucket : Bucket
        Asked for listings.
    offer : Offer
    wanted : Wanted
        The first subjects by site, then label.
    out : Path
        For a folder per site.

    Raises
    ------
    ConfigError
        If an id is of no subject.
    DataError, SiteError
        As `Bucket.list`.
    """
    top = bucket.list(offer.raw)
    files = [bucket.file(key, str(Path(key).parent), out) for key in offer.tables]
    files += _beside(bucket, offer.raw, top, offer.raw, out)
    n, missing = 0, {_bare(i) for i in wanted.ids or ()}
    for site in top.folders:
        if (wanted.n is not None and n >= wanted.n) or (wanted.ids is not None and not missing):
            break
        folder = f"{offer.raw}/{site}"
        listed = bucket.list(folder)
        labels = [name for name in listed.folders if name.startswith("sub-")]
        if wanted.ids is not None:
            labels = [x for x in labels if _bare(x) in missing]
            missing -= {_bare(x) for x in labels}
        elif wanted.n is not None:
            labels = labels[: wanted.n - n]
        n += len(labels)
        if labels:
            files += _beside(bucket, folder, listed, offer.raw, out)
        for label in labels:
            files += _files_of_subject(bucket, f"{folder}/{label}", offer.raw, out)
    _refuse_unknown([i for i in wanted.ids or () if _bare(i) in missing], f"no folder in {offer.raw}")
    return files


def _beside(bucket: Bucket, folder: str, listed: Folder, below: str, out: Path) -> list[RemoteFile]:
    named = {name: size for name, size in listed.files.items() if Path(name).suffix in BESIDE}
    return [bucket.file(f"{folder}/{name}", below, out, size) for name, size in named.items()]


def _files_of_subject(bucket: Bucket, folder: str, below: str, out: Path) -> Iterator[RemoteFile]:
    listed = bucket.list(folder)
    for name, size in listed.files.items():
        yield bucket.file(f"{folder}/{name}", below, out, size)
    for name in listed.folders:
        if name in FOLDERS or name.startswith("ses-"):
            yield from _files_of_subject(bucket, f"{folder}/{name}", below, out)


def roi_files(
    bucket: Bucket, rois: RoiTables, rows: Sequence[Mapping[str, str]], variant: Sequence[str], out: Path
) -> list[RemoteFile]:
    """ROI x time tables of some subjects.

    Parameters
    ----------
    bucket : Bucket
    rois : RoiTables
    rows : sequence of mapping
        Of `chosen`.
    variant : sequence of str
        Pipeline, strategy, derivative.
    out : Path

    Returns
    -------
    list of RemoteFile
        ``Outputs/<pipeline>/<strategy>/<derivative>/<FILE_ID>_<derivative>.1D`` below `out`, as at the source.
    """
    folder = "/".join((rois.folder, "Outputs", *variant))
    names = [f"{row['FILE_ID']}_{variant[-1]}.1D" for row in rows]
    return [bucket.file(f"{folder}/{name}", rois.folder, out) for name in names]


def chosen(rows: Sequence[Mapping[str, str]], wanted: Wanted) -> list[Mapping[str, str]]:
    """Rows of the subjects that were preprocessed, in the order of their ids.

    Parameters
    ----------
    rows : sequence of mapping
        Of the table of phenotypes: ``SUB_ID`` and ``FILE_ID``, which is ``no_filename`` for those without files.
    wanted : Wanted
        Ids as ``50003``, ``0050003`` or ``Pitt_0050003``.

    Raises
    ------
    ConfigError
        If an id is of no subject, or of one without files.
    """
    there = sorted((r for r in rows if r["FILE_ID"] != "no_filename"), key=lambda r: int(r["SUB_ID"]))
    if wanted.ids is None:
        return there[: wanted.n]
    by_id = {_bare(row["FILE_ID"]): row for row in there}
    without = {_bare(row["SUB_ID"]) for row in rows} - by_id.keys()
    _refuse_unknown([i for i in wanted.ids if _bare(i) in without], "not preprocessed by the project")
    _refuse_unknown([i for i in wanted.ids if _bare(i) not in by_id], "not in the table of phenotypes")
    return [by_id[_bare(i)] for i in wanted.ids]


def _bare(spelt: str) -> str:
    """An id without site and zeros: 50003 of Pitt_0050003."""
    return re.sub(r"^(.*[_-])?0*(?=\d+$)", "", spelt)


def _refuse_unknown(ids: Sequence[str], what: str) -> None:
    if ids:
        more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        raise ConfigError(f"--subjects: {', '.join(ids[:3])}{more}: {what}")


def read_table(content: bytes, name: str) -> list[dict[str, str]]:
    """Rows of a table of phenotypes with the columns that `chosen` needs.

    Raises
    ------
    DataError
        If they are not there.
    """
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig", "replace"), newline="")))
    if not rows or not {"SUB_ID", "FILE_ID"} <= rows[0].keys():
        raise DataError(f"{name} is not the table of phenotypes: it has no columns SUB_ID and FILE_ID")
    odd = next((row["SUB_ID"] for row in rows if not (row["SUB_ID"] or "").isdecimal()), None)
    if odd is not None:
        raise DataError(f"{name}: {notes.quote(odd)} is no SUB_ID, which is a number")
    return rows
