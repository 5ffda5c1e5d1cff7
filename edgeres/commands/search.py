"""The command that looks for a student: a device and a latency in, a table and a recipe out.

Candidates are students of several depths and widths, each as it is and pruned. What they take on
the device is predicted from measured layers; the most promising are trained for a few epochs, all
with the same seed; the best becomes a full recipe.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import devices, pipeline, quantities, scratch, stages
from edgeres.artifact import Artifact
from edgeres.disk import storage_errors
from edgeres.errors import BadInput, GateFailed
from edgeres.models import spec as specs
from edgeres.progress import Progress
from edgeres.runs import store_of
from edgeres.stages import _checkpoint, _latency
from edgeres.statistics import wilson

if TYPE_CHECKING:
    from edgeres.models.latency import LatencyTable
    from edgeres.models.modules import Classifier
    from edgeres.recipe import Recipe
    from edgeres.records import Facts
    from edgeres.text.chain import Candidate as Row
    from edgeres.text.chain import Search

SMALL = tuple(f"resnet{d}-w{w:g}" for d in (8, 20, 32) for w in (0.5, 1, 2))
LARGE = tuple(f"resnet{d}-w{w:g}" for d in (10, 18, 34) for w in (0.25, 0.5, 1))
SHARES = (1.0, 0.5)
"""Of the MACs that pruning keeps."""

_SMALL_PX = 64
_ROUND_TO = 8


@dataclass
class Candidate:
    """A student and how much of it is kept.

    Attributes:
        top1, n: on the validation images after the short training; None if it wasn't trained.
    """

    student: str
    keep: float
    model: Classifier
    macs: int
    latency_ns: float
    top1: float | None = None
    n: int = 0


@dataclass(frozen=True)
class Wish:
    """What is asked for; see `edgeres search --help`."""

    device: str
    latency: str
    target: str
    students: Sequence[str]
    epochs: int
    tries: int
    out: Path
    max_drop: float | None = None


def latency(budget: str | None, said: str | None) -> str:
    """What the int8 file may take, out of `--budget latency=0.5x` or `--latency 2ms`.

    Raises:
        BadInput: neither, both, or a budget of another kind.
    """
    kind, _, value = (budget or "").partition("=")
    if (budget is None) == (said is None):
        raise BadInput("say how fast it is to be, once: --budget latency=2ms, or latency=0.5x of "
                       "the recipe's own student")  # fmt: skip
    if budget is not None and (kind != "latency" or not value):
        raise BadInput(f"--budget {budget}: a search keeps to a latency; write latency=2ms or "
                       "latency=0.5x")  # fmt: skip
    return value if said is None else said


def searched(recipe: Recipe, wish: Wish, runs: Path, quiet: bool) -> Search:
    """Search, and write the recipe of the winner.

    Raises:
        BadInput: no candidate is fast enough; says what the fastest one takes.
        GateFailed: the best one loses more than it may against the recipe's own student.
        DeviceError: the device can't measure.
    """
    from edgeres.recipe import dump

    _, is_share = quantities.time_or_share(wish.latency)
    base = None
    if is_share or wish.max_drop is not None:
        base = recipe.distill.student if recipe.distill else recipe.teacher.model
    estimate = devices.load(wish.device).kind == devices.ESTIMATE
    progress = Progress(quiet)
    with contextlib.closing(progress):
        progress.started("search", f"{wish.latency} on {wish.device}")
        data = _data(recipe, runs)
        found, table, limit = _predicted(wish, data, base, progress)
        asked = [c for c in found if not wish.students or c.student in wish.students]
        chosen = _promising(asked, limit, wish)
        whole = next((c for c in found if c.student == base and c.keep == 1), None)
        compared = wish.max_drop is not None and whole is not None and whole not in chosen
        with scratch.folder("work") as folder:
            context = stages.Context(recipe.seed, folder, progress.tick)
            for candidate in [*chosen, whole] if compared and whole else chosen:
                _train(candidate, recipe, data, wish.epochs, context)
    winner = max(chosen, key=lambda c: (c.top1 or 0.0, -c.latency_ns))
    lost = _lost(winner, whole, wish)
    written = _recipe(recipe, winner, wish)
    with storage_errors(wish.out):
        wish.out.write_text(dump(written), "utf-8")
    return {
        "device": wish.device, "estimate": estimate, "target": wish.target,
        "limit_ns": limit, "factor": table.factor,
        "epochs": wish.epochs, "candidates": [_row(c, found, limit) for c in found],
        "winner": _row(winner, found, limit), "recipe": str(wish.out),
        "base": base, "lost_points": lost,
    }  # fmt: skip


def _data(recipe: Recipe, runs: Path) -> Artifact:
    chain = pipeline.until(pipeline.steps(recipe), "data")
    run = pipeline.perform(recipe, chain, store_of(runs), runs, Progress(quiet=True))
    return run.artifacts["data"]


def _lost(winner: Candidate, whole: Candidate | None, wish: Wish) -> float | None:
    """Points of validation top-1 that the winner has less than the recipe's own student.

    Raises:
        GateFailed: they are more than may be.
    """
    if wish.max_drop is None or whole is None or whole.top1 is None or winner.top1 is None:
        return None
    lost = 100 * (whole.top1 - winner.top1)
    if lost > wish.max_drop:
        raise GateFailed(
            f"search: the best within {wish.latency}, {winner.student} with {winner.keep:g}x MACs, "
            f"loses {lost:.2f} points of validation top-1 against {whole.student} after "
            f"{wish.epochs} epochs (n = {winner.n:,}), and {wish.max_drop:g} may be; allow more "
            f"time, more points, or longer trainings (--epochs)"
        )
    return lost


def _predicted(
    wish: Wish, data: Artifact, base: str | None, progress: Progress
) -> tuple[list[Candidate], LatencyTable, float]:
    """Every candidate with what it will take, the slowest first, by a corrected table; the limit.

    Args:
        base: the student that a share is of, and that losses are against.
    """
    from edgeres.compression import budgets, criteria
    from edgeres.compression.prune import prune
    from edgeres.models import resnet
    from edgeres.models.shapes import macs

    preprocess = _checkpoint.default_preprocess(data)
    classes = _checkpoint.class_count(data)
    own = wish.students or (SMALL if preprocess.size_px <= _SMALL_PX else LARGE)
    names = [*own, *([base] if base and base not in own else [])]
    networks: list[tuple[str, float, Classifier]] = []
    for name in names:
        whole = resnet.build(specs.parse(name, classes, preprocess)).eval()
        for share in SHARES:
            model: Classifier = whole
            if share < 1:
                budget = budgets.macs(_latency.layers_of(whole), share)
                with contextlib.suppress(BadInput):  # too slim already to be pruned
                    model = prune(
                        whole, budget, round_to=_ROUND_TO, criterion=lambda _: criteria.magnitude()
                    )
                if model is whole:
                    continue
            networks.append((name, share, model))
    shapes = [_latency.layers_of(model) for *_, model in networks]
    meter = _latency.Meter(wish.device, wish.target, lambda note: progress.tick(0, 0, note))
    table = meter.table([shape for each in shapes for shape in each], _ROUND_TO)
    at_base = next((i for i, (name, share, _) in enumerate(networks)
                    if name == base and share == 1), None)  # fmt: skip
    value, is_share = quantities.time_or_share(wish.latency)
    limit = value * table.predict(shapes[at_base]) if is_share and at_base is not None else value
    fits = [i for i, each in enumerate(shapes) if table.predict(each) <= limit]
    at = max(
        fits or range(len(shapes)), key=lambda i: table.predict(shapes[i]) * (1 if fits else -1)
    )
    table = table.corrected(shapes[at], meter.measure(networks[at][2])["median_ns"])
    if is_share and at_base is not None:
        limit = value * table.predict(shapes[at_base])
    found = [
        Candidate(name, share, model, macs(each), table.predict(each))
        for (name, share, model), each in zip(networks, shapes, strict=True)
    ]
    return sorted(found, key=lambda c: -c.latency_ns), table, limit


def _promising(found: Sequence[Candidate], limit: float, wish: Wish) -> list[Candidate]:
    """Of those that are fast enough, the ones that compute most."""
    fits = [c for c in found if c.latency_ns <= limit]
    if not fits:
        least = found[-1]
        raise BadInput(
            f"--latency {wish.latency}: no candidate is that fast on {wish.device}; "
            f"{least.latency_ns / 1e6:.3g}ms is the least reachable ({least.student}, "
            f"{least.keep:g}x MACs)"
        )
    return sorted(fits, key=lambda c: -c.macs)[: wish.tries]


def _train(
    candidate: Candidate, recipe: Recipe, data: Artifact, epochs: int, context: stages.Context
) -> None:
    """The short training: a stand-in for the long one, good enough to rank by."""
    from edgeres.models import modules
    from edgeres.training import inference, loop, objectives

    section = recipe.distill.train if recipe.distill else recipe.teacher.train.of()
    settings = section.model_copy(
        update={"epochs": epochs, "warmup_epochs": min(section.warmup_epochs, epochs / 4)}
    )
    train, validation, _ = _checkpoint.splits(data)
    model = modules.build(candidate.model.spec, seed=context.seed)
    preprocess = model.spec.preprocess
    work = context.work / f"{candidate.student}-{candidate.keep:g}"
    work.mkdir()
    loop.fit(
        loop.Trainee.of(model, preprocess), train, validation, settings,
        objectives.supervised(preprocess, settings.label_smoothing),
        seed=context.seed, work=work, tick=context.tick,
    )  # fmt: skip
    accuracy, _ = inference.evaluate(loop.Trainee.of(model, preprocess), validation)
    candidate.top1, candidate.n = accuracy.top1, accuracy.n


def _row(candidate: Candidate, found: Sequence[Candidate], limit: float) -> Row:
    rivals = [c for c in found if c.top1 is not None and c is not candidate]
    best = candidate.top1 is not None and not any(
        ((c.top1 or 0) >= candidate.top1 and c.latency_ns < candidate.latency_ns)
        or ((c.top1 or 0) > candidate.top1 and c.latency_ns <= candidate.latency_ns)
        for c in rivals
    )  # fmt: skip
    interval = None
    if candidate.top1 is not None:
        interval = list(wilson(round(candidate.top1 * candidate.n), candidate.n))
    return {
        "student": candidate.student, "keep": candidate.keep, "macs": candidate.macs,
        "latency_ns": candidate.latency_ns, "fits": candidate.latency_ns <= limit,
        "top1": candidate.top1, "n": candidate.n, "interval": interval, "pareto": best,
    }  # fmt: skip


def _recipe(recipe: Recipe, winner: Candidate, wish: Wish) -> Recipe:
    """The whole chain for the winner, with the training of the recipe searched from."""
    from edgeres.recipe import load_mapping, to_mapping

    document = dict(to_mapping(recipe))
    section = recipe.distill.train if recipe.distill else recipe.teacher.train.of()
    train = {"train": section.model_dump(mode="json")}
    document["name"] = wish.out.stem if wish.out.stem[:1].isalnum() else "searched"
    document["description"] = f"Found for {wish.latency} on {Path(wish.device).stem}."
    known = document.get("distill")
    before = known if isinstance(known, Mapping) else {}
    document["distill"] = {**train, **before, "student": winner.student}
    document.pop("prune", None)
    if winner.keep < 1:
        document["prune"] = {
            **_tuning(train["train"]), "latency": f"{winner.latency_ns / 1e6:.4g}ms",
            "device": wish.device, "target": wish.target,
            **({} if wish.max_drop is None else {"max_drop": wish.max_drop}),
        }  # fmt: skip
    document.setdefault("quantize", {"method": "qat", **_tuning(train["train"])})
    document["export"] = {"targets": [wish.target]}
    document |= {"verify": {}, "report": {}}
    if devices.load(wish.device).kind == devices.ESTIMATE:  # it runs nothing, and can be asked
        document["verify"] = {"on": [wish.device]}
    else:
        document["benchmark"] = {"devices": [wish.device]}
    return load_mapping(document)


def _tuning(train: Facts) -> dict[str, object]:
    """Fine-tuning after a long training: a quarter of its epochs, a tenth of its learning rate."""
    return {"train": {**train, "epochs": max(1, train["epochs"] // 4),
                      "learning_rate": train["learning_rate"] / 10}}  # fmt: skip
