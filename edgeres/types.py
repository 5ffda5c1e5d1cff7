"""The vocabulary: small frozen values that flow between the folders. Standard library only.

Quantities carry their unit in the field name. `to_json`/`from_json` move them through files.
"""

from __future__ import annotations

import dataclasses
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from edgeres import records
    from edgeres.records import Exported, Facts, Quantization

Comparison = Literal[">=", "<=", "=="]


@dataclass(frozen=True)
class Preprocess:
    """How a uint8 image becomes a network's input: `(pixel / 255 - mean) / std`.

    Attributes:
        size_px: height and width of the square input.
        mean, std: one value (all channels) or three (R, G, B), in units of pixel / 255.
    """

    size_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def input_quantization(self) -> QuantParams | None:
        """The int8 scale and zero point at which code = pixel - 128 exactly, if there is one.

        With one mean and std for all channels, `(p/255 - mean)/std = (q - z) * s` with
        `s = 1 / (255 std)` and `z = 255 mean - 128` gives `q = p - 128` for every pixel p. The
        scale is rounded to a float16 number, which every format can hold: at most 1/16 of a code.
        """
        if len(set(self.mean)) != 1 or len(set(self.std)) != 1:
            return None
        zero = 255 * self.mean[0] - 128
        if abs(zero - round(zero)) > 1e-3 or not -128 <= round(zero) <= 127:
            return None
        (scale,) = struct.unpack("e", struct.pack("e", 1 / (255 * self.std[0])))
        return QuantParams((scale,), (round(zero),), "int8", None)


@dataclass(frozen=True)
class Resize:
    """How a picture of any size becomes a square, in one resampling.

    Attributes:
        size_px: side of the square.
        short_side_px: what the short side is scaled to, as torchvision's `Resize` does, before the
            centre is cut out; a picture is never enlarged to be cut, so one whose short side has
            `size_px` or less is taken as wide as it is.
        crop: "center", or "none": the whole picture, both sides scaled to `size_px`.
        interpolation: Pillow's `Image.Resampling`, in lower case.
    """

    size_px: int
    short_side_px: int
    crop: str = "center"
    interpolation: str = "bilinear"

    @staticmethod
    def of(size_px: int) -> Resize:
        """torchvision's rule for ImageNet, 256 to 224, at any size."""
        return Resize(size_px, round(size_px * 256 / 224))

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """What of a picture becomes the square: left, top, right, bottom in its pixels."""
        if self.crop == "none":
            return 0, 0, width, height
        short = min(width, height)
        side = short * self.size_px / min(self.short_side_px, max(self.size_px, short))
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side


@dataclass(frozen=True)
class QuantParams:
    """Affine quantization of one tensor: `real = (code - zero_point) * scale`.

    Attributes:
        scale, zero_point: one value (per tensor) or one per channel of `axis`.
        dtype: "int8", "uint8", "int16" or "int32"; "int4" of weights with codes from -7 to 7.
        axis: the channel axis in PyTorch's layout (0 for a weight), None if per tensor.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    dtype: str
    axis: int | None = None


ScaleTable = dict[str, QuantParams]
"""Tensor name -> its trained parameters: `input`, `layer1.0.conv1` (the layer's output, after its
ReLU), `layer1.0.add`, `avgpool`, and `layer1.0.conv1.weight`."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an exported file.

    Attributes:
        shape: with the batch first, as the file declares it.
        dtype: numpy name ("float32", "int8", "uint8", "float16").
        layout: "NCHW", "NHWC" or "NC".
        quantization: how integer codes map to real values; None for float tensors.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    quantization: QuantParams | None = None


@dataclass(frozen=True)
class ExportedFile:
    """A model file written for one runtime. `file` is relative to the artifact that holds it."""

    target: str
    file: str
    sha256: str
    size_bytes: int
    input: TensorSpec
    output: TensorSpec


@dataclass(frozen=True)
class Gate:
    """One measured quantity against its limit."""

    name: str
    measured: float
    comparison: Comparison
    limit: float
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Whether the measured value meets the limit; NaN never does."""
        if self.comparison == ">=":
            return self.measured >= self.limit
        if self.comparison == "<=":
            return self.measured <= self.limit
        return self.measured == self.limit

    def sentence(self) -> str:
        """`agreement 0.93, needs >= 0.99`."""
        unit = f" {self.unit}" if self.unit else ""
        return (
            f"{self.name} {self.measured:.6g}{unit}, needs {self.comparison} {self.limit:g}{unit}"
        )


@dataclass(frozen=True)
class Accuracy:
    """Top-1 on a labelled set: how many of `n` samples were classified correctly."""

    correct: int
    n: int

    @property
    def top1(self) -> float:
        """The share of correct answers, 0 to 1."""
        return self.correct / self.n if self.n else float("nan")


def to_json(value: object) -> Any:
    """A JSON-ready copy of nested dataclasses, tuples and dicts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return value


def quant_params(data: Quantization | None) -> QuantParams | None:
    """QuantParams from its JSON form (None stays None)."""
    if data is None:
        return None
    return QuantParams(
        tuple(data["scale"]), tuple(data["zero_point"]), data["dtype"], data.get("axis")
    )


def resize_rule(data: Facts | None) -> Resize | None:
    """Resize from its JSON form (None stays None)."""
    if data is None:
        return None
    return Resize(data["size_px"], data["short_side_px"], data["crop"], data["interpolation"])


def tensor_spec(data: Facts) -> TensorSpec:
    """TensorSpec from its JSON form."""
    return TensorSpec(
        data["name"],
        tuple(data["shape"]),
        data["dtype"],
        data["layout"],
        quant_params(data.get("quantization")),
    )


def gate_of(data: records.Gate) -> Gate:
    """Gate from its JSON form, in which what isn't a number is null."""
    measured = float("nan") if data["measured"] is None else data["measured"]
    return Gate(data["name"], measured, data["comparison"], data["limit"], data.get("unit") or "")


def exported_file(data: Exported) -> ExportedFile:
    """ExportedFile from its JSON form."""
    return ExportedFile(
        data["target"],
        data["file"],
        data["sha256"],
        data["size_bytes"],
        tensor_spec(data["input"]),
        tensor_spec(data["output"]),
    )
