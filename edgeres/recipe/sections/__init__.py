"""What a recipe may say: one frozen model per section, with defaults, bounds and descriptions.

The descriptions are what an editor shows (recipes/schema.json is generated from these models).
Names of models, data sets, targets and devices are plain text here; who loads them checks them.
"""

from edgeres.recipe.sections.compression import BUDGETS, PruneSection, QuantizeSection
from edgeres.recipe.sections.data import DataSection
from edgeres.recipe.sections.fields import Section
from edgeres.recipe.sections.networks import (
    DistillSection,
    HeadSection,
    HintSection,
    LabelsSection,
    NetworkSection,
    TeacherSection,
)
from edgeres.recipe.sections.results import (
    BenchmarkSection,
    BudgetsSection,
    ExportSection,
    LimitsSection,
    ReportSection,
    VerifySection,
)
from edgeres.recipe.sections.training import (
    CacheSection,
    MixSection,
    TrainingSection,
    TrainSection,
)
from edgeres.recipe.sections.whole import Recipe, RecipeFile

__all__ = [
    "BUDGETS",
    "BenchmarkSection",
    "BudgetsSection",
    "CacheSection",
    "DataSection",
    "DistillSection",
    "ExportSection",
    "HeadSection",
    "HintSection",
    "LabelsSection",
    "LimitsSection",
    "MixSection",
    "NetworkSection",
    "PruneSection",
    "QuantizeSection",
    "Recipe",
    "RecipeFile",
    "ReportSection",
    "Section",
    "TeacherSection",
    "TrainSection",
    "TrainingSection",
    "VerifySection",
]
