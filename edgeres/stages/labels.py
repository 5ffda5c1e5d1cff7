"""Labels: a teacher's answers to the augmented views of the training images, asked once."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.artifact import Artifact
from edgeres.errors import BadInput, StorageError
from edgeres.recipe import LabelsSection
from edgeres.stages import Context, _checkpoint, keyed_as_is

if TYPE_CHECKING:
    from edgeres.records import Facts

VERSION = 2
LIBRARIES = _checkpoint.LIBRARIES

_FEW_CLASSES = 20
_TOP = 10


def keyed(section: LabelsSection) -> dict[str, object]:
    """The section without the limit and the device, which decide no answer."""
    document = keyed_as_is(section)
    del document["limit_gb"], document["device"]
    return document


def run(
    section: LabelsSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, object]:
    """Say what it will take, then ask the teacher; a killed run goes on where it was."""
    import torch

    from edgeres import teachers
    from edgeres.training import label_cache, placement
    from edgeres.training.views import Views, ViewSettings

    data = inputs["data"]
    classes = _checkpoint.class_count(data)
    train, _, _ = _checkpoint.splits(data)
    kept = section.top or (classes if classes <= _FEW_CLASSES else _TOP)
    seen = ViewSettings(context.seed, section.augment, section.mix)
    layout = label_cache.Layout(section.views, len(train.labels), classes, min(kept, classes), seen)
    _fits(layout.size_bytes, layout.sentence(), section.limit_gb, context.work)
    teacher = teachers.load(inputs["teacher"].folder())
    device = placement.device_of(section.device)
    with torch.autocast(device.type, torch.bfloat16, enabled=section.precision == "bf16"), \
            placement.kernels(device, tf32=False):  # fmt: skip
        label_cache.build(teacher, Views(train, seen), layout, context.work, context.tick, device)
    for name in label_cache.FILES:
        if (context.work / name).exists():
            (context.work / name).replace(out / name)
    return {"views": layout.views, "samples": layout.samples, "classes": classes,
            "kept": layout.kept, "size_bytes": layout.size_bytes,
            "sentence": layout.sentence()}  # fmt: skip


def _fits(size_bytes: int, sentence: str, limit_gb: float, folder: Path) -> None:
    if size_bytes > limit_gb * 1e9:
        raise BadInput(
            f"the teacher's answers would take more than cache.limit_gb ({limit_gb:g}): "
            f"{sentence}; lower cache.views or .top, or raise the limit"
        )
    free = shutil.disk_usage(folder).free
    if size_bytes > free:
        raise StorageError(
            f"{folder}: {free / 1e6:,.1f} MB are free, too little for the teacher's answers "
            f"({sentence}); lower cache.views, or free some space"
        )


def summary(facts: Facts) -> str:
    """`45,000 images x 8 views, 10 of 10 answers each: 7.2 MB`."""
    return str(facts["sentence"])
