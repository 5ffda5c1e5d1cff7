"""The contract of a file: what turns a picture into its input, as numbers, words and lines of code.

Whoever does what it says with the pictures of the test split gets the accuracy that was certified.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeres.types import Preprocess, QuantParams, Resize, TensorSpec, to_json

FILE = "preprocess.json"
_PICTURE = ("the first frame, upright by its EXIF orientation, transparent pixels over white, as "
            "8-bit RGB")  # fmt: skip
_TYPES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}


def noted(preprocess: Preprocess, resize: Resize | None) -> dict[str, object]:
    """What a file itself says: the network's part, and how a picture comes to its size.

    Type, layout, scale and zero point of the input are the file's own, in its format's way.

    Args:
        resize: of the data; None where no rule is known.
    """
    said: dict[str, object] = to_json(preprocess)
    if resize is None:
        return said
    said |= {"channels": "RGB", "resize": to_json(resize)}
    if resize.size_px != preprocess.size_px:
        said["then"] = (f"scaled from {resize.size_px} to {preprocess.size_px} px in floating "
                        "point, bilinear with antialiasing")  # fmt: skip
    return said


def whole(
    preprocess: Preprocess, resize: Resize | None, takes: TensorSpec, labels: Sequence[str]
) -> dict[str, object]:
    """The contract, JSON-ready.

    Args:
        takes: the file's input.
        labels: the classes' names, in the order of its outputs.
    """
    q = _codes(takes)
    codes = {"scale": q.scale[0], "zero_point": q.zero_point[0]} if q else {}
    return {
        "schema": 1, **noted(preprocess, resize), "dtype": takes.dtype, "layout": takes.layout,
        "shape": list(takes.shape), **codes, "formula": _formula(q is not None),
        "code": _code(preprocess, resize, takes), "labels": list(labels),
    } | ({"picture": _PICTURE} if resize is not None else {})  # fmt: skip


def _codes(takes: TensorSpec) -> QuantParams | None:
    """How numbers become codes; None for an input of floating point, whatever a file says of it."""
    q = takes.quantization
    usable = q and takes.dtype in _TYPES and len(q.scale) == len(q.zero_point) == 1
    return q if usable else None


def _formula(integer: bool) -> str:
    real = "(pixel / 255 - mean) / std"
    return f"round({real} / scale) + zero_point, clipped to dtype" if integer else real


def _code(preprocess: Preprocess, resize: Resize | None, takes: TensorSpec) -> list[str]:
    """Lines of Python with Pillow and numpy: `picture` in, `x` out."""
    lines = []
    if resize is not None:
        px, filter_ = resize.size_px, f"Image.Resampling.{resize.interpolation.upper()}"
        box = "0, 0, w, h"
        lines.append("w, h = picture.size")
        if resize.crop != "none":
            lines += [
                f"s = min(w, h) * {px} / min({resize.short_side_px}, max({px}, min(w, h)))",
                "l, t = (w - s) // 2, (h - s) // 2",
            ]
            box = "l, t, l + s, t + s"
        lines.append(f"pixels = picture.resize(({px}, {px}), {filter_}, box=({box}))")
    lines.append("x = np.asarray(pixels, np.float32) / 255")
    if resize is not None and resize.size_px != preprocess.size_px:
        lines.append(f"# scale x to {preprocess.size_px} px here, in floating point")
    mean, std = (f"np.float32({list(v) if len(v) > 1 else v[0]})"
                 for v in (preprocess.mean, preprocess.std))  # fmt: skip
    lines.append(f"x = (x - {mean}) / {std}")
    if q := _codes(takes):
        low, high = _TYPES[takes.dtype]
        lines.append(f"x = np.rint(x / np.float32({q.scale[0]})) + {q.zero_point[0]}")
        lines.append(f"x = x.clip({low}, {high})")
    layout = ".transpose(2, 0, 1)" if takes.layout == "NCHW" else ""
    lines.append(f'x = np.ascontiguousarray(x.astype("{takes.dtype}"){layout}[None])')
    return lines
