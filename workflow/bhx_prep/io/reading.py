"""Turn errors of parsers over damaged files into a `DataError`; only the parser's call belongs inside `reading`."""

from __future__ import annotations

import errno
import struct
import tokenize
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from xml.parsers.expat import ExpatError

from isal import isal_zlib
from nibabel.cifti2 import Cifti2HeaderError
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from bhx_model.errors import DataError
from bhx_prep.io.notes import short
from bhx_prep.io.pointers import not_fetched

#: What parsers raise over damaged files: their own errors, and what Python raises where they believe a number, a name
#: or a nesting that is not there. Our own code raises some of these, too, where it is wrong: it stays outside of `reading`.
PARSER_ERRORS: Final[tuple[type[Exception], ...]] = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RecursionError,
    SyntaxError,
    tokenize.TokenError,
    NotImplementedError,
    struct.error,
    zlib.error,
    isal_zlib.error,  # type: ignore[assignment]
    ExpatError,
    ImageFileError,
    HeaderDataError,
    WrapStructError,
    MGHError,
    Cifti2HeaderError,
)

#: What is no file's fault: memory, disk, quota, open files.
MACHINE_ERRORS: Final = (errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)

#: Characters of what a library says that a reason repeats.
_SAID: Final = 100


@contextmanager
def reading(path: Path, what: str = "cannot be read, it is truncated or damaged") -> Iterator[None]:
    """Turn what a library raises over the content of `path` into a `DataError`.

    Parameters
    ----------
    path : Path
    what : str
        What its name is followed by in the sentence.

    Raises
    ------
    DataError
        If the library raises one of `PARSER_ERRORS`. What the machine lacks (memory, disk, handles) passes.
    """
    try:
        yield
    except DataError:
        raise
    except PARSER_ERRORS as error:
        if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
            raise
        if missing := not_fetched(path):
            raise DataError(f"{short(path.name)} {missing}") from error
        if isinstance(error, FileNotFoundError):
            raise DataError(
                f"there is no file {short(path.name)}: check the name, or make it first"
            ) from error
        said = " ".join(str(error).split()) or type(error).__name__  # may quote the file at length
        raise DataError(
            f"{short(path.name)} {what}: {said if len(said) <= _SAID else said[: _SAID - 2] + '..'}"
        ) from error
