"""Read files inside zip archives by a path through the archive: ``1000011_20252_2_0.zip/T1/T1.nii.gz``.

Data sets that are published as an archive per subject and scan are read where they are: nothing is unpacked beside
them. The index reads an archive's directory and first bytes of members; jobs unpack the members of one scan into a
temporary folder, and remove it again. Standard library only.
"""

from __future__ import annotations

import errno
import gzip
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import IO, Any, Final

from bhx_model.errors import DataError

#: What the name of an archive ends with.
ENDING: Final = ".zip"
#: A member that inflates to more bytes than this, and more than so many times its size, is no scan.
_MOST_BYTES: Final = 1 << 30
_MOST_INFLATED: Final = 1032
#: What is no archive's fault: memory, open files.
_MACHINE_ERRORS: Final = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
#: Bit of a member's flags: its content is encrypted.
_ENCRYPTED: Final = 1


def split(path: Path | str) -> tuple[Path, str] | None:
    """Archive and name of the member that a path leads to; None for a path that leads through no archive."""
    text = str(path)
    end = text.find(f"{ENDING}/")
    while end >= 0:
        archive = text[: end + len(ENDING)]
        if not os.path.isdir(archive):  # noqa: PTH112, a hundred thousand times
            return Path(archive), text[end + len(ENDING) + 1 :]
        end = text.find(f"{ENDING}/", end + 1)
    return None


def members(archive: Path) -> Mapping[str, zipfile.ZipInfo]:
    """Files in an archive, by name. Reads its directory at the end of the file.

    Raises
    ------
    DataError
        If it is no archive, damaged, or has members whose names lead out of it.
    """
    with _reading(archive):
        stat = archive.stat()
    return _directory(archive, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8)
def _directory(archive: Path, _size: int, _changed: int) -> Mapping[str, zipfile.ZipInfo]:
    """Directory of an archive, read once for all its members."""
    with _reading(archive), zipfile.ZipFile(archive) as opened:
        listed = opened.infolist()
    for member in listed:
        name = member.orig_filename
        if name.startswith("/") or "\\" in name or ":" in name[:2] or ".." in name.split("/"):
            raise DataError(f"archive {archive.name} has a member whose name leads out of it: fetch it again")
    return MappingProxyType({member.filename: member for member in listed if not member.is_dir()})


def find(path: Path) -> tuple[Path, zipfile.ZipInfo]:
    """Archive and member that a path leads to.

    Raises
    ------
    DataError
        If the archive cannot be read, or has no such member.
    """
    found = split(path)
    if found is None:
        raise DataError(f"{path.name} is in no archive")
    archive, name = found
    member = members(archive).get(name)
    if member is None:
        raise DataError(f"archive {archive.name} has no member {PurePosixPath(name).name}")
    return archive, member


@contextmanager
def open_member(path: Path) -> Iterator[IO[bytes]]:
    """Open a file inside an archive for reading; what is read is checked at its end only.

    Parameters
    ----------
    path : Path
        That `split` takes apart.

    Raises
    ------
    DataError
        As `find`, or if the member is encrypted or no scan.
    """
    archive, member = find(path)
    if member.flag_bits & _ENCRYPTED:
        raise DataError(f"{path.name} in {archive.name} is encrypted: unpack it first")
    if member.file_size > _MOST_BYTES and member.file_size > _MOST_INFLATED * member.compress_size:
        raise DataError(f"{path.name} in {archive.name} inflates to {member.file_size} bytes: it is no scan")
    with ExitStack() as stack:
        with _reading(archive):
            content = stack.enter_context(stack.enter_context(zipfile.ZipFile(archive)).open(member))
        yield content


def read_start(path: Path, n_bytes: int) -> bytes:
    """First bytes of a file inside an archive, inflated where its own name ends with ``.gz``.

    Raises
    ------
    DataError
        As `open_member`, or if they cannot be read.
    """
    with open_member(path) as content, _reading(path):
        if path.suffix != ".gz":
            return content.read(n_bytes)
        with gzip.open(content) as inflated:
            return inflated.read(n_bytes)


@contextmanager
def unpacked(fields: Mapping[str, Any], columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Fields of a scan with paths of files, where theirs lead into archives.

    Parameters
    ----------
    fields : mapping
        A row.
    columns : tuple of str
        Those that hold paths, or None. Other fields stay as they are.

    Yields
    ------
    dict
        The row; unpacked files are there as long as the context lasts, under the names of the members.

    Raises
    ------
    DataError
        As `open_member`.
    """
    inside = {c: Path(fields[c]) for c in columns if fields.get(c) and split(fields[c]) is not None}
    if not inside:
        yield dict(fields)
        return
    with tempfile.TemporaryDirectory(prefix="bhx-") as folder:
        row = dict(fields)
        for column, path in inside.items():
            target = Path(folder) / column / path.name
            target.parent.mkdir()
            with target.open("wb") as file, open_member(path) as content:
                while block := _read(content, path):
                    file.write(block)
            row[column] = str(target)
        yield row


def _read(content: IO[bytes], path: Path) -> bytes:
    with _reading(path):
        return content.read(1 << 20)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what zipfile raises over a damaged archive, or over a damaged member, into a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        why = "is a link to a file that is not here (datalad get?)" if path.is_symlink() else "does not exist"
        raise DataError(f"archive {path.name} {why}") from None
    except PermissionError:
        raise DataError(f"archive {path.name} cannot be read: permission denied") from None
    except zipfile.BadZipFile as error:
        raise DataError(f"archive {path.name} is damaged or incomplete: fetch it again ({error})") from error
    except (
        EOFError,
        ValueError,
        LookupError,
        OverflowError,
        struct.error,
        zlib.error,
        gzip.BadGzipFile,
    ) as error:
        raise DataError(f"archive {path.name} is damaged or incomplete: fetch it again") from error
    except OSError as error:
        if error.errno in _MACHINE_ERRORS:
            raise
        raise DataError(f"archive {path.name} cannot be read: {error.strerror or error}") from error
    except NotImplementedError as error:
        raise DataError(f"archive {path.name} is compressed in a way that Python does not know") from error
