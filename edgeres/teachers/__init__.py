"""Teachers: a finished teacher folder in, something that answers uint8 images out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeres.training.answers import Teacher


def load(folder: Path) -> Teacher:
    """The teacher of a teacher artifact.

    Raises:
        BadInput: the folder holds no teacher, or a damaged one.
    """
    from edgeres.models import weights
    from edgeres.training.answers import Network

    return Network(weights.load(folder))
