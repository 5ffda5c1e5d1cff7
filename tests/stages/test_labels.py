"""Stored answers in a run: planned where the recipe wants them, made once, used again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgeres import pipeline, teachers
from edgeres.errors import BadInput
from edgeres.recipe import Recipe, load_mapping
from edgeres.store import Store
from edgeres.training import answers

TRAIN = {"epochs": 1, "augment": ["crop"], "batch_size": 128}
BASE: dict[str, Any] = {
    "name": "cached", "data": {"source": "digits", "size": 8}, "train": TRAIN,
    "teacher": {"model": "resnet8"},
}  # fmt: skip


def recipe(**distill: Any) -> Recipe:
    cached = {"student": "resnet8-w0.5", "cache": {"views": 2}, **distill}
    return load_mapping({**BASE, "distill": cached, "quantize": {}})


class Silent:
    """Nobody looks."""

    def __init__(self) -> None:
        self.done: dict[str, bool] = {}

    def started(self, step: str, note: str) -> None: ...

    def tick(self, done: int, total: int, note: str) -> None: ...

    def finished(
        self, step: str, cached: bool, seconds: float, summary: str, notes: Sequence[str]
    ) -> None:
        self.done[step] = cached


def needs(made: Recipe) -> dict[str, dict[str, str]]:
    return {step.id: dict(step.needs) for step in pipeline.steps(made)}


def test_labels_are_a_step_only_where_the_recipe_stores_them() -> None:
    assert needs(recipe())["labels"] == {"data": "data", "teacher": "teacher"}
    assert needs(recipe())["distill"]["labels"] == "labels"
    assert needs(recipe())["quantize"]["labels"] == "labels"  # the same views
    for without in (recipe(cache=None), recipe(loss="none")):
        assert "labels" not in needs(without)
        assert "labels" not in needs(without)["distill"]
    other = recipe(train={"augment": ["flip"]})
    assert "labels" not in needs(other)["quantize"]


def test_the_first_section_that_wants_stored_answers_says_how() -> None:
    """Without a student, too: a network that is pruned learns from itself as it was."""
    prune = {"prune": {"macs": 0.5, "cache": {"views": 3}}, "quantize": {}}
    found = needs(load_mapping({**BASE, "distill": {"student": "resnet8-w0.5"}, **prune}))
    assert list(found) == ["data", "teacher", "distill", "labels", "prune", "quantize"]
    assert [s for s, roles in found.items() if "labels" in roles] == ["prune", "quantize"]
    assert needs(load_mapping({**BASE, **prune}))["prune"] == {
        "data": "data", "teacher": "teacher", "model": "teacher", "labels": "labels",
    }  # fmt: skip
    calibrated = {"method": "ptq", "cache": {"views": 3}}
    assert "labels" not in needs(load_mapping({**BASE, "quantize": calibrated}))


def test_a_stored_answer_has_the_precision_it_would_have_in_a_step() -> None:
    cached = {"student": "resnet8-w0.5", "cache": {"views": 2}}
    for precision, stored in (("fp32", "fp32"), ("bf16", "bf16"), ("fp16", "fp32")):
        train = {**TRAIN, "precision": precision}
        steps = pipeline.steps(load_mapping({**BASE, "train": train, "distill": cached}))
        (labels,) = (step.section for step in steps if step.id == "labels")
        assert labels.precision == stored


def test_a_second_wish_for_stored_answers_must_be_for_the_same_views() -> None:
    prune = {"macs": 0.5, "cache": {"views": 3}}
    cached = {"student": "resnet8-w0.5", "cache": {"views": 2}}
    same = load_mapping({**BASE, "distill": cached, "prune": prune})
    assert needs(same)["prune"]["labels"] == "labels"
    other = {**prune, "train": {"augment": ["flip"]}}
    with pytest.raises(
        BadInput, match=r"prune\.cache: a section before it stores answers to other"
    ):
        needs(load_mapping({**BASE, "distill": cached, "prune": other}))


def test_a_second_student_uses_the_stored_answers_and_no_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(made: Recipe) -> tuple[dict[str, bool], Any]:
        seen = Silent()
        chain = pipeline.until(pipeline.steps(made), "distill")
        store = Store(tmp_path / "store")
        return seen.done, pipeline.perform(made, chain, store, tmp_path / "runs", seen)

    first, made = run(recipe())
    assert first == dict.fromkeys(["data", "teacher", "labels", "distill"], False)
    facts = made.artifacts["labels"].facts
    assert facts["size_bytes"] == 2 * facts["samples"] * 10 * 2
    assert made.artifacts["distill"].parents["labels"]["digest"] == made.artifacts["labels"].digest

    def refuse(*_: object) -> None:
        raise AssertionError("the teacher was asked")

    monkeypatch.setattr(answers.Network, "answer", refuse)
    monkeypatch.setattr(teachers, "load", refuse)  # nor is it loaded
    second, _ = run(recipe(temperature=2.0))
    assert second == {"data": True, "teacher": True, "labels": True, "distill": False}
    third, another = run(recipe(train={"seed": 1}))  # another student of the same answers
    assert third == second
    weights = [m.artifacts["distill"].file("weights.safetensors") for m in (made, another)]
    assert weights[0].read_bytes() != weights[1].read_bytes()
