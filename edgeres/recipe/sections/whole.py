"""The recipe that the sections make up."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from edgeres.recipe.sections.compression import PruneSection, QuantizeSection
from edgeres.recipe.sections.data import DataSection
from edgeres.recipe.sections.fields import (
    Section,
    Text,
)
from edgeres.recipe.sections.networks import DistillSection, TeacherSection
from edgeres.recipe.sections.results import (
    BenchmarkSection,
    BudgetsSection,
    ExportSection,
    ReportSection,
    VerifySection,
)
from edgeres.recipe.sections.training import TrainSection


class Recipe(Section):
    """A whole recipe, every setting resolved. A stage whose section is None is left out."""

    version: Annotated[Literal[1], Field(description="Of the recipe format.")] = 1
    name: Annotated[
        str,
        Field(
            pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
            description="Names the run: letters, digits, '.', '_' and '-'.",
        ),
    ]
    description: Annotated[str, Field(description="One line about it.")] = ""
    seed: Annotated[
        int, Field(ge=0, lt=2**32, description="Of all randomness: the same seed, the same result.")
    ] = 0
    data: DataSection = DataSection()
    teacher: TeacherSection = TeacherSection()
    distill: DistillSection | None = None
    prune: PruneSection | None = None
    quantize: QuantizeSection | None = None
    export: ExportSection | None = None
    verify: VerifySection | None = None
    benchmark: BenchmarkSection | None = None
    budgets: BudgetsSection | None = None
    report: ReportSection | None = None

    @model_validator(mode="after")
    def _files_to_work_on(self) -> Recipe:
        for name in ("verify", "benchmark"):
            if self.export is None and getattr(self, name) is not None:
                raise PydanticCustomError(
                    "conflict",
                    "there are no files to work on; add `export:` or set it to false",
                    {"at": (name,)},
                )
        if self.budgets is not None and self.benchmark is None:
            raise PydanticCustomError(
                "conflict", "nothing is measured; add `benchmark:` or set it to false",
                {"at": ("budgets",)},
            )  # fmt: skip
        return self

    @model_validator(mode="after")
    def _pieces_of_photographs_come_first(self) -> Recipe:
        for name in ("teacher", "distill", "prune", "quantize"):
            section = getattr(self, name)
            views = section.train.augment if section is not None else ()
            if self.data.storage == "jpeg" and "resized-crop" in views[1:]:
                raise PydanticCustomError(
                    "conflict",
                    "with data.storage=jpeg, resized-crop cuts from the photograph itself, before "
                    "all else; name it first",
                    {"at": (name, "train", "augment")},
                )
        return self


class RecipeFile(Recipe):
    """A recipe as it is written, before `extends` and `train` are resolved."""

    extends: Annotated[
        Text | None,
        Field(description="A shipped recipe's name or a file beside this one; this one wins."),
    ] = None
    train: Annotated[
        TrainSection, Field(description="For every stage that trains; a stage's own `train` wins.")
    ] = TrainSection()
