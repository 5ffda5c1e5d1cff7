"""The prune stage's parts: criteria, budgets, and training in pieces that can be resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgeres import door, quantities
from edgeres.artifact import Artifact
from edgeres.disk import storage_errors, write_whole
from edgeres.models.latency import LatencyTable
from edgeres.recipe import PruneSection
from edgeres.stages import Context, _checkpoint, _latency
from edgeres.types import Preprocess

if TYPE_CHECKING:
    from torch import Tensor

    from edgeres.compression.budgets import Budget
    from edgeres.compression.criteria import Criterion
    from edgeres.models.modules import Classifier
    from edgeres.recipe import TrainSection
    from edgeres.records import Paced
    from edgeres.training.loop import Objective
    from edgeres.training.views import Labelled

_TAYLOR_IMAGES = 1024


@dataclass
class Pruning:
    """One run of the stage.

    Attributes:
        history: a row per epoch so far, of all pieces.
    """

    section: PruneSection
    context: Context
    train: Labelled
    validation: Labelled
    calibration: Tensor
    preprocess: Preprocess
    objective: Objective
    history: list[dict[str, object]] = field(default_factory=list)

    @classmethod
    def of(cls, section: PruneSection, inputs: Mapping[str, Artifact], context: Context) -> Pruning:
        """With the data, the teacher and the preprocessing of the stage's inputs."""
        from edgeres import teachers
        from edgeres.models import spec
        from edgeres.training import objectives

        train, validation, test = _checkpoint.splits(inputs["data"], inputs.get("labels"))
        preprocess = spec.from_json(inputs["model"].read_json("spec.json")).preprocess
        objective = objectives.distilled(
            teachers.OnDemand(inputs["teacher"]), preprocess,
            temperature=section.temperature, alpha=section.alpha,
            smoothing=section.train.label_smoothing,
        )  # fmt: skip
        calibration = _checkpoint.calibration_images(inputs["data"], train, test)
        return cls(section, context, train, validation, calibration, preprocess, objective)

    def slimmed(self, model: Classifier, budget: Budget) -> Classifier:
        """The network cut down to a budget, not trained yet."""
        from edgeres.compression.prune import prune

        return prune(model, budget, round_to=self.section.round_to, criterion=self._criterion())

    def _criterion(self) -> Callable[[Classifier], Criterion]:
        from edgeres.compression import criteria
        from edgeres.training.views import Labelled

        name, train = self.section.criterion, self.train
        if name == "taylor":
            images = Labelled(train.images[:_TAYLOR_IMAGES], train.labels[:_TAYLOR_IMAGES])
            return lambda model: criteria.taylor(model, images, self.objective)
        return lambda model: criteria.bn_scale() if name == "bn-scale" else criteria.magnitude()

    def sparse(self, model: Classifier) -> Classifier:
        """The network after training that makes the groups which can go small."""
        from edgeres.compression.sparsity import GroupSparsity

        section = self.section
        epochs = section.train.epochs if section.sparse_epochs is None else section.sparse_epochs

        def train(
            network: Classifier, settings: TrainSection
        ) -> tuple[Objective, Callable[..., None]]:
            sparsity = GroupSparsity(network, section.sparsity)
            return sparsity.objective(self.objective), lambda *_: sparsity.refresh()

        return self.piece("sparse", lambda: model, epochs, train)

    def piece(
        self,
        name: str,
        make: Callable[[], Classifier],
        epochs: int,
        special: Callable[[Classifier, TrainSection], tuple[Objective, Callable[..., None]]]
        | None = None,
    ) -> Classifier:
        """Make a network and train it; what an interrupted run has of both is taken up.

        Args:
            special: network -> another objective, and what to call when an epoch starts.
        """
        from edgeres.models import weights
        from edgeres.training import loop

        folder = self.context.work / name
        begun, done = folder / "begun", folder / "done"
        if (done / "history.json").exists():
            rows = door.read_json(done / "history.json")
            return self._ended(name, weights.load(done), rows)
        if (begun / "spec.json").exists():
            model = weights.load(begun)
        else:
            model = make()
            with storage_errors(folder):
                begun.mkdir(parents=True, exist_ok=True)
                weights.save(begun, model)
        settings = self.section.train.model_copy(update={"epochs": epochs})
        trainee, objective = loop.Trainee.of(model, self.preprocess), self.objective
        if special is not None:
            objective, start = special(model, settings)
            trainee = replace(trainee, start_epoch=start)
        rows = loop.fit(
            trainee, self.train, self.validation, settings, objective,
            seed=self.context.seed, work=folder, tick=self.context.tick,
        )  # fmt: skip
        with storage_errors(folder):
            done.mkdir(exist_ok=True)
            weights.save(done, model)
            write_whole(done / "history.json", json.dumps(rows))
        return self._ended(name, model, rows)

    def _ended(self, name: str, model: Classifier, rows: list[dict[str, object]]) -> Classifier:
        first = len(self.history)
        self.history += [{**row, "epoch": first + i, "part": name} for i, row in enumerate(rows, 1)]
        return model.eval()

    def epochs_of(self, step: int) -> int:
        """The epochs of one step; the last one gets what can't be shared out."""
        each, rest = divmod(self.section.train.epochs, self.section.steps)
        return each + (rest if step == self.section.steps else 0)


def budget_of(section: PruneSection, original: Classifier) -> Budget | None:
    """The recipe's budget; None if it says none, or one that is to be measured."""
    from edgeres.compression import budgets

    shapes = _latency.layers_of(original)
    if section.macs is not None:
        return budgets.macs(shapes, section.macs)
    if section.params is not None:
        return budgets.parameters(shapes, section.params)
    if section.size is not None:
        return budgets.size(section.target, quantities.size(section.size))
    return None


@dataclass
class LatencyPlan:
    """A latency budget, measured: kept in the work folder, so that it is measured once."""

    table: LatencyTable
    rounds: list[dict[str, float]]
    before: Paced
    meter: _latency.Meter
    limit_ns: float

    @classmethod
    def of(cls, pruning: Pruning, original: Classifier, model: Classifier) -> LatencyPlan:
        """Measure the layers and whole files that the budget needs.

        Raises:
            BadInput: the budget is out of reach; says what is reachable.
            DeviceError: the device failed.
        """
        from edgeres.compression import budgets

        section, context = pruning.section, pruning.context
        meter = _latency.Meter(
            section.device, section.target, lambda note: context.tick(0, 0, note)
        )
        kept = context.work / "latency.json"
        if kept.exists():
            found = door.read_json(kept)
            table = LatencyTable.from_json(found["table"])
            meter.first = original, found["before"]
            limit = _limit_ns(section, found["before"])
            return cls(table, found["rounds"], found["before"], meter, limit)
        table = meter.table(_latency.layers_of(model), section.round_to)
        before = meter.measure(original)
        limit = _limit_ns(section, before)

        def slim_to(table: LatencyTable) -> Classifier:
            return pruning.slimmed(model, budgets.latency(table, limit))

        table, rounds = _latency.corrected(table, meter, model, limit, slim_to)
        with storage_errors(kept):
            plan = {"table": table.to_json(), "rounds": rounds, "before": before}
            write_whole(kept, json.dumps(plan))
        return cls(table, rounds, before, meter, limit)

    def budget(self) -> Budget:
        from edgeres.compression import budgets

        return budgets.latency(self.table, self.limit_ns)

    def facts(self, section: PruneSection, model: Classifier) -> dict[str, object]:
        """Predicted against measured, of the network that came out."""
        return {
            "device": section.device, "target": section.target, "asked_ns": self.limit_ns,
            "predicted_ns": self.table.predict(_latency.layers_of(model)),
            "measured": self.meter.measure(model), "before": self.before, "rounds": self.rounds,
        }  # fmt: skip


def _limit_ns(section: PruneSection, before: Paced) -> float:
    """What a latency budget allows; `before` is the unpruned network's."""
    limit, share = quantities.time_or_share(section.latency or "")
    return limit * before["paced_ns"] if share else limit
