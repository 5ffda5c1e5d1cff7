"""A picture file in, a square of pixels out: upright, RGB, cut and scaled by a rule."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.disk import open_regular
from edgeres.errors import BadInput
from edgeres.types import Resize

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff",
                      ".avif"})  # fmt: skip
DRAFT_MARGIN = 2.0
"""JPEGs may be decoded at 1/2, 1/4 or 1/8 of their size while the short side stays this many times
what is asked for."""

# No other decoder sees a file, whatever its name.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
_MAX_PIXELS = 1 << 27  # a 108-megapixel telephone camera; more is a decompression bomb
_MAX_SIDE = 65_535  # JPEG's; decoders also take memory for each row
_LARGE_BYTES = 64 << 20  # decoded; a picture that large has detail,
_MAX_TIMES = 250  # so that it is no more than so many times its file


def decode(
    file: Path, size_px: int, resize: Resize | None = None, draft_margin: float | None = None
) -> np.ndarray:
    """uint8 (size_px, size_px, 3) of a picture's first frame, by `resize` (`Resize.of` if None).

    One resampling also never holds the resized long side, which a one-pixel-high picture would
    blow up.

    Args:
        draft_margin: None decodes JPEGs whole; see `DRAFT_MARGIN`.

    Raises:
        BadInput: it can't be decoded, or would take too much memory.
    """
    import numpy as np
    from PIL import Image, ImageOps

    rule = resize or Resize.of(size_px)
    try:
        with open_regular(file) as stream, Image.open(stream, formats=_formats()) as opened:
            _require_decodable(file, *opened.size, os.fstat(stream.fileno()).st_size)
            if draft_margin:
                least = round(draft_margin * rule.short_side_px)
                opened.draft(None, (least, least))  # the other formats don't know it
            picture = _rgb(ImageOps.exif_transpose(opened))
    except BadInput:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error …
        raise BadInput(f"{file}: can't be decoded ({error}); replace or remove it") from error
    kind = Image.Resampling[rule.interpolation.upper()]
    return np.asarray(picture.resize((size_px, size_px), kind, box=rule.box(*picture.size)))


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


def _rgb(picture: Any) -> Any:
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
    return picture.convert("RGB")
