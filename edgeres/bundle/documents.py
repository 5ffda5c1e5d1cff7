"""The documents in a bundle: bytes from anywhere in, typed values or a sentence out."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from edgeres.door import unique
from edgeres.errors import BadInput
from edgeres.types import Comparison

SCHEMA = 3
MOST_BYTES = 4 * 1024**2
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def timestamp(seconds: int) -> str:
    """`2026-11-26T16:40:00Z` of seconds since 1970."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime(_TIME)


def seconds(text: str) -> int:
    """Seconds since 1970 of what `timestamp` wrote.

    Raises:
        ValueError: it is no such text.
    """
    return int(datetime.strptime(text, _TIME).replace(tzinfo=timezone.utc).timestamp())


def _time(text: str) -> str:
    if timestamp(seconds(text)) != text:
        raise ValueError("not a time in UTC")
    return text


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has control characters")
    return text


Text = Annotated[str, Field(max_length=1000, strict=True), AfterValidator(_printable)]
Name = Annotated[Text, Field(min_length=1, max_length=255)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", strict=True)]
Serial = Annotated[int, Field(ge=1, lt=2**53, strict=True)]
Time = Annotated[str, Field(max_length=30, strict=True), AfterValidator(_time)]
Shape = Annotated[
    list[Annotated[int, Field(ge=1, le=2**24, strict=True)]], Field(min_length=1, max_length=4)
]
Numbers = Annotated[
    list[Annotated[float, Field(allow_inf_nan=False, strict=True)]],
    Field(min_length=1, max_length=3),
]
Dtype = Literal["int8", "uint8", "int16", "float16", "float32"]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Open(BaseModel):
    """Has more than is read here."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Manifest(_Document):
    """What a bundle is, and the sha256 of each of its files.

    Attributes:
        name: what it is a version of; serial: larger in later versions.
        signer: the signer's public key, DER in base64; None if it isn't signed.
    """

    version: Literal[3] = Field(alias="schema")
    edgeres: Text
    name: Annotated[Name, Field(max_length=200)]
    run: Name
    kind: Text = Field(alias="for")
    target: Text
    created: Time
    serial: Serial
    signer: Annotated[Text, Field(max_length=200)] | None
    sha256: Annotated[dict[Name, Sha256], Field(min_length=1, max_length=500)]


Pixels = Annotated[int, Field(ge=1, le=65536, strict=True)]


class ResizeRule(_Document):
    """See edgeres.types.Resize."""

    size_px: Pixels
    short_side_px: Pixels
    crop: Literal["center", "none"]
    interpolation: Literal["bilinear", "bicubic", "lanczos", "box", "nearest"]


class Preprocess(_Open):
    """The numbers of a contract (edgeres/contract.py), out of which it is written again."""

    size_px: Pixels
    mean: Numbers
    std: Numbers
    resize: ResizeRule | None = None


class Tensor(_Document):
    """Of one image, without the batch."""

    shape: Shape
    dtype: Dtype


class Golden(_Document):
    """How `golden/` is to be read, and how far other kernels' answers may be off."""

    model: Name
    samples: Annotated[int, Field(ge=1, le=1000, strict=True)]
    input: Tensor
    output: Tensor
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
    made_by: Text


class GateRow(_Open):
    """See edgeres.types.Gate; whether it is met isn't read but judged."""

    name: Text
    measured: Annotated[float, Field(strict=True)]
    comparison: Comparison
    limit: Annotated[float, Field(allow_inf_nan=False, strict=True)]
    unit: Text = ""


class CertifiedTensor(_Open):
    """With the batch first."""

    shape: Shape
    dtype: Dtype


class CertifiedFile(_Open):
    """See edgeres.types.ExportedFile."""

    file: Name
    sha256: Sha256
    input: CertifiedTensor
    output: CertifiedTensor


class CertificateRow(_Open):
    """One file's."""

    target: Text
    file: CertifiedFile
    gates: Annotated[list[GateRow], Field(min_length=1, max_length=200)]


class Certificate(_Open):
    """What the verify stage writes (verify.json)."""

    version: Literal[2] = Field(alias="schema")
    files: Annotated[list[CertificateRow], Field(min_length=1, max_length=100)]


class _Hash(_Open):
    alg: Text
    content: Text


class _Component(_Open):
    name: Name
    hashes: Annotated[list[_Hash], Field(min_length=1, max_length=10)]


class _Metadata(_Open):
    component: _Component


class _Library(_Open):
    name: Name
    version: Text


class Sbom(_Open):
    """CycloneDX, as far as edgeres writes it."""

    format: Literal["CycloneDX"] = Field(alias="bomFormat")
    metadata: _Metadata
    components: Annotated[list[_Library], Field(max_length=1000)]


_Kind = TypeVar("_Kind", bound=BaseModel)


def parsed(kind: type[_Kind], content: bytes, where: str) -> _Kind:
    """One of the documents above.

    Raises:
        BadInput: the first thing that is wrong with it.
    """
    try:
        return kind.model_validate(mapping(content, where))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:100]
        raise BadInput(f"{where}: {ascii(place)[1:-1]}: {first['msg']}") from error


def mapping(content: bytes, where: str) -> dict[str, object]:
    """A JSON object.

    Raises:
        BadInput: it is none, or says two things under one name.
    """
    try:
        document = json.loads(content, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not valid JSON") from error
    if not isinstance(document, dict):
        raise BadInput(f"{where}: not a mapping")
    return document
