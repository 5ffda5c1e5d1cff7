"""A picture file in, a square of pixels out: upright, RGB, cut and scaled by a rule, or a piece."""

from __future__ import annotations

import hashlib
import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from edgeres.disk import open_regular
from edgeres.errors import BadInput
from edgeres.types import Resize

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff",
                      ".avif"})  # fmt: skip
DRAFT_MARGIN = 2.0
"""JPEGs may be decoded at 1/2, 1/4 or 1/8 of their size while the short side stays this many times
what is asked for."""

LEAST_AREA, WIDEST = 0.35, 4 / 3
"""Of a piece: its smallest share of the area, and its largest ratio of width and height."""

MOST_BYTES = 1 << 30
"""Of a file that is read whole, to be held against its hash."""

# No other decoder sees a file, whatever its name.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)  # EXIF's
_MAX_PIXELS = 1 << 27  # a 108-megapixel telephone camera; more is a decompression bomb
_MAX_SIDE = 65_535  # JPEG's; decoders also take memory for each row
_LARGE_BYTES = 64 << 20  # decoded; a picture that large has detail,
_MAX_TIMES = 250  # so that it is no more than so many times its file


Piece = tuple[float, float, float, float]
"""Numbers from 0 to 1, drawn for a piece's area, its aspect ratio, its left and its top."""


class Wanted(NamedTuple):
    """A picture that a training asks for.

    Attributes:
        size_bytes, sha256: of the file as it was listed.
        piece: of the picture; None: what the rule shows.
    """

    file: str
    size_bytes: int
    sha256: bytes
    piece: Piece | None = None


def decode(
    file: Path, size_px: int, resize: Resize | None = None, draft_margin: float | None = None
) -> np.ndarray:
    """uint8 (size_px, size_px, 3) of a picture's first frame, by `resize` (`Resize.of` if None).

    Args:
        draft_margin: None decodes JPEGs whole; see `DRAFT_MARGIN`.

    Raises:
        BadInput: it can't be decoded, or would take too much memory.
    """
    with open_regular(file) as stream:
        size_bytes = os.fstat(stream.fileno()).st_size
        return _decoded(file, stream, size_bytes, resize or Resize.of(size_px), draft_margin)


def decode_listed(wanted: Wanted, rule: Resize, draft_margin: float | None) -> np.ndarray:
    """uint8 (size_px, size_px, 3) of a listed picture: what the rule shows, or a piece of it all.

    Raises:
        BadInput: like `decode`; or it isn't the file that was listed.
    """
    file = Path(wanted.file)
    with open_regular(file) as opened:
        same = os.fstat(opened.fileno()).st_size == wanted.size_bytes <= MOST_BYTES
        content = opened.read(wanted.size_bytes) if same else b""
    if not same or hashlib.sha256(content).digest() != wanted.sha256:
        raise BadInput(f"{file}: isn't the file that it was when the data were listed; bring it "
                       "back, or run again with the data as they are now")  # fmt: skip
    stream = io.BytesIO(content)
    return _decoded(file, stream, len(content), rule, draft_margin, wanted.piece)


def box_of(
    piece: Piece, width: int, height: int, squeezed: bool = False
) -> tuple[float, float, float, float]:
    """Where a drawn piece of a picture is: left, top, right and bottom.

    It has 35 to 100 % of the area and an aspect ratio of 3/4 to 4/3, both as far as they fit into
    the picture (Szegedy et al. 2015, section 6). All in float64, picture by picture, so that a box
    is the same in any batch and process.

    Args:
        squeezed: the ratio is that of a picture squeezed into a square.
    """
    area, ratio, left, top = piece
    root = math.sqrt(LEAST_AREA + (1 - LEAST_AREA) * area)
    stretch = math.exp((ratio - 0.5) * math.log(WIDEST))  # the root of the ratio
    if squeezed:
        w, h = width * min(1.0, root * stretch), height * min(1.0, root / stretch)
    else:
        root *= math.sqrt(width * height)
        w, h = min(width, root * stretch), min(height, root / stretch)
        w, h = min(w, h * WIDEST), min(h, w * WIDEST)
    left, top = (width - w) * left, (height - h) * top
    return left, top, min(left + w, width), min(top + h, height)


def _decoded(
    file: Path, stream: BinaryIO, size_bytes: int, rule: Resize, draft_margin: float | None,
    piece: Piece | None = None,
) -> np.ndarray:  # fmt: skip
    """One resampling of an opened file.

    It also never holds the resized long side, which a one-pixel-high picture would blow up.
    """
    import numpy as np
    from PIL import Image, ImageOps

    size, whole = (rule.size_px, rule.size_px), None
    try:
        with Image.open(stream, formats=_formats()) as opened:
            _require_decodable(file, *opened.size, size_bytes)
            if draft_margin and piece is None:
                least = round(draft_margin * rule.short_side_px)
                opened.draft(None, (least, least))  # the other formats don't know it
            elif draft_margin and piece is not None and opened.format in ("JPEG", "MPO"):
                whole = _drafted(opened, rule, draft_margin, piece)
            ImageOps.exif_transpose(opened, in_place=True)
            picture = _rgb(opened)
            box = rule.box(*picture.size)
            if piece is not None:
                width, height, scale = whole or (*picture.size, 1.0)
                full = box_of(piece, width, height, rule.crop == "none")
                box = (full[0] * scale, full[1] * scale, full[2] * scale, full[3] * scale)
            kind = Image.Resampling[rule.interpolation.upper()]
            return np.asarray(picture.resize(size, kind, box=box))
    except BadInput:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error …
        raise BadInput(f"{file}: can't be decoded ({error}); replace or remove it") from error


def _drafted(opened: Image, rule: Resize, margin: float, piece: Piece) -> tuple[int, int, float]:
    """Have a JPEG decoded smaller where its piece stays large enough.

    Returns:
        Its upright width and height, and its scale from now on: 1, 1/2, 1/4 or 1/8.
    """
    turned = opened.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
    width, height = opened.size[::-1] if turned else opened.size
    left, top, right, bottom = box_of(piece, width, height, rule.crop == "none")
    least = margin * rule.size_px
    want = math.ceil(width * least / (right - left)), math.ceil(height * least / (bottom - top))
    drafted = opened.draft(None, want[::-1] if turned else want)
    return width, height, drafted[1][3 if turned else 2] / width if drafted else 1.0


def _formats() -> list[str]:
    """Those of `_FORMATS` that the installed Pillow reads."""
    from PIL import Image

    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _require_decodable(file: Path, width: int, height: int, size_bytes: int) -> None:
    """Refuse a decompression bomb by its header."""
    decoded = 3 * width * height
    if width * height > _MAX_PIXELS or max(width, height) > _MAX_SIDE:
        raise BadInput(f"{file}: {width}x{height} pixels are too many")
    if decoded > max(_LARGE_BYTES, _MAX_TIMES * size_bytes):
        raise BadInput(f"{file}: {size_bytes:,} bytes would become {width}x{height} pixels, "
                       f"{decoded / 1e6:,.0f} MB; save it smaller")  # fmt: skip


def _rgb(picture: Image) -> Image:
    """Any mode to RGB: 16-bit grey is scaled, not clipped; transparent pixels show white."""
    import numpy as np
    from PIL import Image

    if picture.mode.startswith("I"):
        grey = np.asarray(picture).clip(0, 65535) / 257
        return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")
