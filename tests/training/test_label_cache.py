"""The label cache: it holds what the teacher says of the very views that the student sees."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from conftest import images, network
from torch import Tensor

from edgeres.errors import BadInput, StorageError
from edgeres.models import resnet, spec
from edgeres.recipe import LabelsSection, MixSection, TrainSection
from edgeres.stages import labels as stage
from edgeres.training import label_cache, loop, objectives
from edgeres.training.answers import as_teacher
from edgeres.training.label_cache import LabelCache, Layout
from edgeres.training.views import Labelled, Views, ViewSettings

COUNT = 300  # more than the teacher is asked about at once
AUGMENT = ("crop", "flip", "cutout")
SEEN = ViewSettings(7, AUGMENT, MixSection(share=0.5))
SETTINGS = TrainSection(epochs=3, batch_size=100, learning_rate=0.01, augment=AUGMENT, mix=SEEN.mix)


def split(count: int = COUNT) -> Labelled:
    return Labelled(images(count, px=8), torch.arange(count) % 10)


class Recorder:
    """A real teacher that remembers what it was shown."""

    def __init__(self, classes: int = 10):
        self.inner = as_teacher(network("resnet8", px=8, classes=classes))
        self.shown: list[Tensor] = []

    def answer(self, shown: Tensor) -> Tensor:
        self.shown.append(shown)
        return self.inner.answer(shown)


def built(folder: Path, kept: int = 10, classes: int = 10, views: int = 2) -> LabelCache:
    folder.mkdir(exist_ok=True)
    layout = Layout(views, COUNT, classes, kept, SEEN)
    teacher = as_teacher(network("resnet8", px=8, classes=classes))
    label_cache.build(teacher, Views(split(), SEEN), layout, folder, lambda *_: None)
    return LabelCache(folder)


def test_every_answer_is_the_teachers_to_the_view_that_training_shows(tmp_path: Path) -> None:
    cache = built(tmp_path)
    teacher, shown = Recorder(), []
    train = Labelled(split().images, split().labels, cache)

    def objective(module: torch.nn.Module, seen: Tensor, labels: Tensor, answer: Tensor) -> Tensor:
        torch.testing.assert_close(answer, teacher.answer(seen), rtol=1e-3, atol=2e-3)
        shown.append(seen)
        return module((seen.float() - 128) / 64).square().mean()

    preprocess = spec.default_preprocess(8)
    model = resnet.build(spec.parse("resnet8-w0.5", 10, preprocess))
    loop.fit(loop.Trainee.of(model, preprocess), train, split(8),
             SETTINGS, objective, seed=7, work=tmp_path, tick=lambda *_: None)  # fmt: skip
    epochs = [torch.cat(shown[i : i + 3]) for i in (0, 3, 6)]
    pixels = [{image.numpy().tobytes() for image in epoch} for epoch in epochs]
    assert pixels[0] == pixels[2]  # two views take turns
    assert len(pixels[0] & pixels[1]) < 5


def test_a_student_with_stored_answers_never_asks_the_teacher(tmp_path: Path) -> None:
    cache, teacher = built(tmp_path), Recorder()
    preprocess = spec.default_preprocess(8)
    model = resnet.build(spec.parse("resnet8-w0.5", 10, preprocess))
    objective = objectives.distilled(teacher, preprocess, temperature=4, alpha=0.9, smoothing=0)
    settings = SETTINGS.model_copy(update={"epochs": 1})
    train = Labelled(split().images, split().labels, cache)
    loop.fit(loop.Trainee.of(model, preprocess), train, split(8), settings, objective,
             seed=7, work=tmp_path, tick=lambda *_: None)  # fmt: skip
    assert not teacher.shown
    objective(model, images(4, px=8), torch.zeros(4).long())
    assert len(teacher.shown) == 1


def test_of_many_classes_the_top_ones_are_kept_and_the_rest_share(tmp_path: Path) -> None:
    cache = built(tmp_path, kept=5, classes=30)
    chosen = torch.tensor([299, 0, 41])
    whole = built(tmp_path / "whole", kept=30, classes=30).of(chosen, 1)
    stored = cache.of(chosen, 1)
    top = whole.topk(5).indices
    torch.testing.assert_close(stored.gather(1, top), whole.gather(1, top), rtol=1e-3, atol=2e-3)
    p, q = stored.softmax(1), whole.softmax(1)
    torch.testing.assert_close(p.gather(1, top), q.gather(1, top), rtol=5e-3, atol=1e-4)
    others = p.scatter(1, top, 0)
    assert others.gt(0).sum(1).tolist() == [25] * 3
    assert torch.allclose(others.amax(1) * 25, others.sum(1), rtol=1e-3)  # shared evenly
    assert cache.layout.size_bytes == 2 * COUNT * (2 * 6 + 2 * 5)
    on_disk = sum((tmp_path / n).stat().st_size for n in ("answers.npy", "classes.npy"))
    assert 0 <= on_disk - cache.layout.size_bytes < 500


def test_a_build_that_was_killed_goes_on_and_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_cache, "_SYNC_EVERY_S", -1.0)
    built(tmp_path / "whole")
    layout, views = Layout(2, COUNT, 10, 10, SEEN), Views(split(), SEEN)
    killed = tmp_path / "killed"
    killed.mkdir()

    def kill(done: int, total: int, note: str) -> None:
        if done > total * 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label_cache.build(Recorder(), views, layout, killed, kill)
    again = Recorder()
    label_cache.build(again, views, layout, killed, lambda *_: None)
    assert sum(map(len, again.shown)) < 2 * COUNT  # it went on
    for name in ("answers.npy", "labels.json"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    (killed / "answers.npy").unlink()  # what is noted as done but isn't there is done again
    label_cache.build(Recorder(), views, layout, killed, lambda *_: None)
    assert (killed / "answers.npy").read_bytes() == (tmp_path / "whole/answers.npy").read_bytes()


def test_answers_to_other_views_are_refused(tmp_path: Path) -> None:
    cache = built(tmp_path)
    for other in (ViewSettings(8, AUGMENT, SEEN.mix), ViewSettings(7, ("crop",), SEEN.mix),
                  ViewSettings(7, AUGMENT)):  # fmt: skip
        with pytest.raises(BadInput, match="seed 7, augmentation crop, flip, cutout, either 1"):
            cache.check(other)


def test_too_much_is_refused_before_the_teacher_is_asked(tmp_path: Path) -> None:
    sentence = Layout(8, 45_000, 10, 10, SEEN).sentence()
    assert sentence == "45,000 images x 8 views, 10 of 10 answers each: 7.2 MB"
    with pytest.raises(BadInput, match=r"more than cache\.limit_gb \(0\.001\): 45,000 im"):
        stage._fits(7_200_000, sentence, 0.001, tmp_path)
    with pytest.raises(StorageError, match="are free"):
        stage._fits(shutil.disk_usage(tmp_path).total * 2, sentence, 1e9, tmp_path)
    keyed = [stage.keyed(LabelsSection(limit_gb=limit)) for limit in (1.0, 2.0)]
    assert keyed[0] == keyed[1]
