"""The images."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from edgeres.recipe.sections.fields import Section, Text


class ResizeSection(Section):
    """How pictures of any size become squares: scaled, then cut, in one resampling."""

    short_side: Annotated[
        Annotated[int, Field(ge=8, le=4096)] | None,
        Field(
            description="Pixels of a picture's short side before the cut; null is 256/224 of the "
            "size. No picture is enlarged to be cut: one of the size is taken whole."
        ),
    ] = None
    crop: Annotated[
        Literal["center", "none"],
        Field(description="none: the whole picture, squeezed into a square."),
    ] = "center"
    interpolation: Annotated[
        Literal["bilinear", "bicubic", "lanczos", "box", "nearest"],
        Field(description="Pillow's; the first is torchvision's for most weights."),
    ] = "bilinear"

    def rule(self) -> dict[str, object]:
        """What is other than `types.Resize.of` says."""
        found = {"short_side_px": self.short_side, "crop": self.crop,
                 "interpolation": self.interpolation}  # fmt: skip
        return {key: value for key, value in found.items() if value is not None}


class DataSection(Section):
    """The images: where they are from, their size, and what is set aside."""

    source: Annotated[
        Text, Field(description="NAME or NAME:PATH; `edgeres list datasets` shows the names.")
    ] = "digits"
    size: Annotated[
        Annotated[int, Field(ge=8, le=1024)] | None,
        Field(description="Height and width in pixels; null is the data set's own."),
    ] = None
    resize: Annotated[
        ResizeSection | None, Field(description="How pictures come to that size; see below.")
    ] = None
    links: Annotated[
        bool, Field(description="Take pictures that links lead to outside the folder, too.")
    ] = False
    storage: Annotated[
        Literal["decoded", "jpeg"],
        Field(
            description="decoded: training pictures are stored as pixels of the size; jpeg: they "
            "stay the files that they are, and are decoded as the training needs them."
        ),
    ] = "decoded"
    on_error: Annotated[
        Literal["stop", "skip"],
        Field(
            description="Of storage jpeg: what to do about a training picture that can't be "
            "decoded; skip takes the next one of its class in its place, and says so."
        ),
    ] = "stop"
    workers: Annotated[
        Annotated[int, Field(ge=0, le=256)] | None,
        Field(
            description="Of storage jpeg: processes that decode; 0: none but the training itself; "
            "null: one for each CPU core, 8 at most."
        ),
    ] = None
    validation: Annotated[
        float, Field(gt=0, lt=1, description="Share of the training images set aside.")
    ] = 0.1
    calibration: Annotated[
        int,
        Field(ge=1, le=100_000, description="Training images, at most, for activation ranges."),
    ] = 256

    @model_validator(mode="after")
    def _cut_from_what_is_there(self) -> Self:
        cut = self.resize is not None and self.resize.crop != "none"
        short = self.resize.short_side if self.resize and cut else None
        if short is not None and self.size is not None and short < self.size:
            raise PydanticCustomError(
                "conflict", "is {short}, less than the size, {size}; give at least that",
                {"at": ("resize", "short_side"), "short": short, "size": self.size},
            )  # fmt: skip
        for key, plain in (("on_error", "stop"), ("workers", None)):
            if self.storage == "decoded" and getattr(self, key) != plain:
                raise PydanticCustomError(
                    "conflict", "is for data.storage=jpeg; pictures that are stored as pixels are "
                    "all decoded before the training, and the damaged ones named at once",
                    {"at": (key,)},
                )  # fmt: skip
        return self
