"""Files from strangers: a path in, its bytes out, never more of them than expected."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from edgeres.disk import at_most, open_regular
from edgeres.errors import BadInput


def read(path: Path, limit_bytes: int) -> bytes:
    """The contents of a file, gunzipped if it is a gzip file.

    Raises:
        BadInput: it can't be opened, is no regular file, is damaged, or holds more than
            `limit_bytes` when unpacked.
    """
    with open_regular(path) as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        try:
            contents = at_most(limit_bytes, gzip.GzipFile(fileobj=stream) if packed else stream)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise BadInput(f"{path}: damaged gzip file ({error}); fetch it again") from error
    if len(contents) > limit_bytes:
        raise BadInput(f"{path}: holds more than the {limit_bytes:,} bytes such a file can have")
    return contents
