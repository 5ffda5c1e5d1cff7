"""What the sections' settings are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from edgeres import preprocessing


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if names.count(name) > 1:
            raise PydanticCustomError("repeated", "names '{name}' twice", {"name": name})
    return names


def _of_unit_pixels(values: object) -> object:
    said = preprocessing.above_one(values) if isinstance(values, (list, tuple)) else None
    if said:
        raise PydanticCustomError("unit", "{said}", {"said": said})
    return values


def _per_channel(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) not in (1, 3):
        raise PydanticCustomError("channels", "should hold 1 value, or 3 (red, green, blue)")
    return values


_UNIQUE = {"uniqueItems": True}
Text = Annotated[str, Field(min_length=1)]
Names = Annotated[
    tuple[Text, ...], Field(min_length=1, json_schema_extra=_UNIQUE), AfterValidator(_unique)
]
Share = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[
    float, Field(gt=0, le=100, description="Softens the teacher's answers: logits / temperature.")
]
Alpha = Annotated[
    float,
    Field(ge=0, le=1, description="Weight of the teacher's answers; the labels get the rest."),
]

_CHANNELS = Field(min_length=1, max_length=3)
_OWN = Field(description="The network's own, 1 or 3 values, as pixel / 255.")
_UNIT = BeforeValidator(_of_unit_pixels)
Mean = Annotated[
    Annotated[tuple[Share, ...], _CHANNELS, AfterValidator(_per_channel)] | None, _UNIT, _OWN
]
Std = Annotated[
    Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], ...], _CHANNELS, AfterValidator(_per_channel)
    ]
    | None,
    _UNIT,
    _OWN,
]

Limit = Annotated[
    Annotated[float, Field(gt=0, le=1e9)] | None, Field(description="At most; see docs/budgets.md.")
]


class Section(BaseModel):
    """Base of all sections: can't be changed, knows no other keys, holds no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
