"""Weights of other classes: a new last layer, trained alone and then with the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import network
from teachers.conftest import CLASSES, MEAN, STD, first, pictures, widened

from edgeres.artifact import Artifact
from edgeres.commands import chain
from edgeres.errors import BadInput
from edgeres.models import resnet, weights
from edgeres.models.resnet import ResNet
from edgeres.recipe import DistillSection, TeacherSection, checked, load_mapping
from edgeres.stages import Context, distill, teacher

OTHER = 7
LOADED = {"mean": MEAN, "std": STD, "near_chance": "go on"}


@pytest.fixture
def file(tmp_path: Path, trained: ResNet) -> Path:
    """The trained network as it would be with the last layer of other classes."""
    model = widened(trained, OTHER, [0, 2, 4, 6])
    with torch.no_grad():
        model.fc.weight.copy_(torch.randn(model.fc.weight.shape))
    torch.save(model.state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def run(
    stage: Any, section: Any, data: Artifact, root: Path, tick: Any = lambda *_: None
) -> tuple[ResNet, dict[str, Any]]:
    for name in ("out", "work"):
        (root / name).mkdir(parents=True, exist_ok=True)
    nobody = Artifact("teacher", "-", "-", root / "nowhere", {}, {}, {}, {}, 0.0)
    facts = stage.run(section, {"data": data, "teacher": nobody}, root / "out",
                      Context(0, root / "work", tick))  # fmt: skip
    return weights.load(root / "out"), facts


def of(file: Path, **train: Any) -> TeacherSection:
    return checked(TeacherSection, {
        **LOADED, "model": f"checkpoint:{file}", "new_head": {"epochs": 2},
        "train": {"batch_size": 16, "augment": (), **train},
    })  # fmt: skip


def test_a_teacher_of_other_classes_is_fine_tuned(
    tmp_path: Path, data: Artifact, trained: ResNet, file: Path
) -> None:
    model, facts = run(teacher, of(file, epochs=2), data, tmp_path)
    assert model.spec.classes == CLASSES
    assert facts["new_head"] == {"classes_before": OTHER, "epochs_alone": 2}
    assert facts["epochs"] == 4 and facts["source"] == "checkpoint"
    assert facts["test"]["correct"] / facts["test"]["n"] > 0.9
    said = teacher.summary(facts)
    assert "its 7 classes aren't the data's: new last layer, 2 epochs alone and 2 with" in said
    assert not torch.equal(model.conv1.weight, trained.conv1.weight)


def test_as_many_but_other_classes_get_a_new_last_layer_where_it_is_said(
    tmp_path: Path, data: Artifact, trained: ResNet
) -> None:
    """The last layer knows the classes in another order; a saved network and a checkpoint."""
    known = resnet.build(trained.spec, seed=1)
    known.load_state_dict(trained.state_dict())
    with torch.no_grad():
        known.fc.weight.copy_(-trained.fc.weight)
        known.fc.bias.copy_(-trained.fc.bias)
    known.eval()
    (tmp_path / "saved").mkdir()
    weights.save(tmp_path / "saved", known)
    torch.save(known.state_dict(), tmp_path / "known.pth")
    for n, origin in enumerate((tmp_path / "saved", tmp_path / "known.pth")):
        section = of(origin, epochs=2)
        always = section.model_copy(
            update={"new_head": section.new_head.model_copy(update={"replace": "always"})}
        )
        model, facts = run(teacher, always, data, tmp_path / str(n))
        assert facts["new_head"] == {"classes_before": CLASSES, "epochs_alone": 2}
        assert facts["test"]["correct"] / facts["test"]["n"] > 0.9
        assert not torch.equal(model.conv1.weight, known.conv1.weight)
    stop = section.model_copy(update={"near_chance": "stop"})
    with pytest.raises(BadInput, match=r"--new-head \(teacher.new_head.replace: always\)"):
        run(teacher, stop, data, tmp_path / "as_it_is")


def test_the_last_layer_alone_leaves_the_rest_as_it_is(
    tmp_path: Path, data: Artifact, trained: ResNet, file: Path
) -> None:
    """Its weights and its batch statistics, until all of it is trained; then at a lower rate."""
    run(teacher, of(file, epochs=1), data, tmp_path)
    alone = weights.load(tmp_path / "work" / "head" / "done")
    body = {k: v for k, v in trained.state_dict().items() if not k.startswith("fc.")}
    for name, value in alone.state_dict().items():
        assert name.startswith("fc.") or torch.equal(value, body[name]), name
    assert alone.fc.weight.abs().max() > 0


def test_an_interrupted_fine_tuning_ends_in_the_same_bits(
    tmp_path: Path, data: Artifact, file: Path
) -> None:
    whole, facts = run(teacher, of(file, epochs=1), data, tmp_path / "a")

    def tick(*_: object) -> None:
        if (tmp_path / "b" / "work" / "head" / "done" / "history.json").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(teacher, of(file, epochs=1), data, tmp_path / "b", tick)
    again, same = run(teacher, of(file, epochs=1), data, tmp_path / "b")
    assert same == facts
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())


def test_epochs_0_leaves_a_teacher_unless_its_head_is_new(
    tmp_path: Path, data: Artifact, trained: ResNet, file: Path
) -> None:
    says = (f"teacher: its weights have {OTHER} classes but the data have {CLASSES}, and "
            r"teacher.train.epochs is 0")  # fmt: skip
    with pytest.raises(BadInput, match=says):
        run(teacher, of(file, epochs=0), data, tmp_path)
    torch.save(trained.state_dict(), tmp_path / "same.pth")
    images, _ = pictures(24, 9)
    for number, train in enumerate(({}, {"epochs": 0}, {"epochs": 1})):
        model, facts = run(
            teacher, of(tmp_path / "same.pth", **train), data, tmp_path / f"{number}"
        )
        assert "new_head" not in facts
        assert facts["epochs"] == train.get("epochs", 0)
        assert torch.equal(first(model, images), first(trained, images)) == (facts["epochs"] == 0)


@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_student_of_other_classes_is_fine_tuned(
    form: str, tmp_path: Path, data: Artifact, trained: ResNet, file: Path
) -> None:
    if form == "folder":
        file = tmp_path / "saved"
        file.mkdir()
        weights.save(file, widened(trained, OTHER, [0, 2, 4, 6]))
    values = {"student": "resnet8", "mean": MEAN, "std": STD, "checkpoint": str(file),
              "loss": "none", "new_head": {"epochs": 3}}  # fmt: skip
    train = {"epochs": 1, "batch_size": 16, "augment": ()}
    section = checked(DistillSection, {**values, "train": train})
    _, facts = run(distill, section, data, tmp_path)
    assert facts["test"]["correct"] / facts["test"]["n"] > 0.9
    assert "new last layer, 3 epochs alone and 1 with the rest" in distill.summary(facts)
    still = checked(DistillSection, {**values, "train": {**train, "epochs": 0}})
    with pytest.raises(BadInput, match=r"distill: its weights have 7 classes but the data have 4"):
        run(distill, still, data, tmp_path / "again")


def test_outputs_that_are_named_need_no_new_head(
    tmp_path: Path, data: Artifact, trained: ResNet
) -> None:
    torch.save(widened(trained, OTHER, [0, 2, 4, 6]).state_dict(), tmp_path / "wide.pth")
    section = checked(TeacherSection, {**LOADED, "model": f"checkpoint:{tmp_path / 'wide.pth'}",
                                       "outputs": (0, 2, 4, 6)})  # fmt: skip
    _, facts = run(teacher, section, data, tmp_path)
    assert "new_head" not in facts and facts["epochs"] == 0


def test_an_ensemble_takes_no_member_of_other_classes(
    tmp_path: Path, data: Artifact, file: Path
) -> None:
    section = checked(TeacherSection, {**LOADED, "ensemble": (f"checkpoint:{file}",)})
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match="has 7 classes but the data have 4"):
        teacher.run(section, {"data": data}, tmp_path / "out",
                    Context(0, tmp_path, lambda *_: None))  # fmt: skip


def test_a_command_takes_a_checkpoint_of_other_classes(tmp_path: Path) -> None:
    torch.save(network("resnet8", 8, classes=3).state_dict(), tmp_path / "net.pth")
    given = ["data.size=8", "train.batch_size=64", "train.epochs=9", "teacher.train.epochs=1",
             "teacher.near_chance=go on"]  # fmt: skip
    recipe, _ = chain.continued(
        str(tmp_path / "net.pth"), None, "digits", tmp_path, "quantize", given, {"method": "ptq"}
    )
    made = chain.perform(recipe, tmp_path, "quantize", quiet=True)["artifacts"]
    facts = {name: made[name]["facts"] for name in ("teacher", "quantize")}
    assert facts["teacher"]["new_head"] == {"classes_before": 3, "epochs_alone": 2}
    assert facts["teacher"]["epochs"] == 3
    assert {f["classes"] for f in facts.values()} == {10}


def test_rates_depend_on_whether_weights_are_trained() -> None:
    recipe = load_mapping({
        "name": "r", "train": {"epochs": 3}, "teacher": {"checkpoint": "a.pth"}, "distill": {},
        "prune": {"macs": 0.5}, "quantize": {},
    })  # fmt: skip
    assert recipe.teacher.train.epochs is None  # shared epochs retrain nothing
    assert recipe.teacher.train.learning_rate == 0.01
    assert recipe.distill and recipe.distill.train.learning_rate == 0.1
    assert recipe.prune and recipe.prune.train.learning_rate == 0.01
    assert recipe.quantize and recipe.quantize.train.learning_rate < 0.01
    assert {s.train.epochs for s in (recipe.distill, recipe.prune, recipe.quantize)} == {3}
    said = load_mapping({
        "name": "r", "train": {"learning_rate": 0.2}, "teacher": {"model": "torchvision:resnet18"},
        "distill": {"checkpoint": "b.pth", "train": {"learning_rate": 0.3}}, "quantize": {},
    })  # fmt: skip
    assert said.teacher.train.learning_rate == 0.2
    assert said.distill and said.distill.train.learning_rate == 0.3
    assert said.quantize and said.quantize.train.learning_rate == 0.2
    fresh = load_mapping({"name": "r"})
    assert fresh.teacher.train.of().epochs == 10
    assert fresh.teacher.train.learning_rate == 0.1


@pytest.mark.parametrize(
    ("name", "says"),
    [("text.pth", "not a readable checkpoint"), ("other.pth", "aren't named as a ResNet's"),
     ("part.pth", "layer1.0.conv1"), ("student", "not a readable checkpoint")],
)  # fmt: skip
def test_weights_are_looked_at_before_a_picture_is_decoded(
    name: str, says: str, tmp_path: Path, trained: ResNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"a.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    state = {k: v for k, v in trained.state_dict().items() if k != "layer1.0.conv1.weight"}
    torch.save(state, tmp_path / "part.pth")
    document: dict[str, Any] = {"name": "a", "data": {"source": "digits", "size": 16}}
    if name == "student":
        document |= {"distill": {"student": "resnet8", "checkpoint": str(tmp_path / "text.pth")}}
    else:
        document |= {"teacher": {"model": f"checkpoint:{tmp_path / name}"}}
    monkeypatch.setattr("edgeres.datasets.opened", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(BadInput, match=says):
        chain.perform(load_mapping(document), tmp_path / "runs", None, quiet=True)


def test_a_file_that_isnt_there_is_no_unknown_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.pth: no such file"):
        chain.origin(str(tmp_path / "none.pth"), None, tmp_path)
