"""Recipes: what loads, what wins over what, and what each mistake is told."""

from __future__ import annotations

import json
import os
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

import edgeres
from edgeres import documents, recipe
from edgeres.errors import BadInput
from edgeres.recipe import ExportSection, Recipe, TrainSection, VerifySection, idle
from edgeres.recipe.reference import reference
from edgeres.recipe.sections import RecipeFile

NO_SHARE = "is no share to keep; write one between 0 and 1, e.g. 0.5"
NO_BUDGET = "has no budget; add one, e.g. `macs: 0.5` (or params, size, latency)"
FULL = """\
name: full
train: {batch_size: 32, epochs: 7}
data: digits
teacher:
  train: {epochs: 2}
distill:
prune:
  macs: 0.5
quantize: {}
export:
  targets: [onnx-int8]
verify:
benchmark:
report:
"""

KIND = documents.Kind("recipe", 1 << 20, "start with `extends: quickstart`")


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def _write(text: str | bytes, name: str = "r.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return _write


def problems(path: str | Path, overrides: tuple[str, ...] = ()) -> list[str]:
    """The lines of the error, with the folder cut off."""
    with pytest.raises(BadInput) as caught:
        recipe.load(path, overrides)
    text = str(caught.value)
    if isinstance(path, Path):
        text = text.replace(f"{path.parent}/", "")
    return text.splitlines()


# What loads.


def test_a_name_alone_is_a_recipe(write: Any) -> None:
    assert recipe.load(write("name: tiny")) == Recipe(name="tiny")


def test_empty_sections_get_defaults_and_absent_ones_are_left_out(write: Any) -> None:
    text = "name: a\nexport: {targets: [x]}\nverify:\nreport: {}\nprune: false"
    loaded = recipe.load(write(text))
    assert loaded.verify == VerifySection()
    assert loaded.report is not None
    assert loaded.prune is loaded.benchmark is None


def test_shared_train_lies_below_each_stages_own(write: Any) -> None:
    loaded = recipe.load(write(FULL))
    assert loaded.teacher.train.of() == TrainSection(batch_size=32, epochs=2)
    for section in (loaded.distill, loaded.prune, loaded.quantize):
        assert section is not None
        said = section.train.model_dump(exclude={"learning_rate"})
        assert said == TrainSection(batch_size=32, epochs=7).model_dump(exclude={"learning_rate"})
    assert not hasattr(loaded, "train")


def test_shared_train_reaches_a_teacher_that_is_not_written(write: Any) -> None:
    assert recipe.load(write("name: a\ntrain: {epochs: 3}")).teacher.train.epochs == 3


def test_an_empty_train_is_the_default(write: Any) -> None:
    loaded = recipe.load(write("name: a\ntrain:\nteacher:\n  train:"))
    assert loaded.teacher.train.of() == TrainSection()


def test_scalars_follow_yaml_1_2(write: Any) -> None:
    loaded = recipe.load(
        write("name: 2026-11-21\ndescription: off\ntrain: {weight_decay: 1e-3, learning_rate: 1}")
    )
    assert loaded.name == "2026-11-21"
    assert loaded.description == "off"
    assert loaded.teacher.train.weight_decay == 1e-3
    assert loaded.teacher.train.learning_rate == 1


def test_a_byte_order_mark_and_small_aliases_are_fine(write: Any) -> None:
    text = "\ufeffname: a\nteacher: {train: &t {epochs: 4}}\ndistill: {train: *t}\n"
    loaded = recipe.load(write(text))
    assert loaded.distill is not None
    assert loaded.distill.train == loaded.teacher.train.of() == TrainSection(epochs=4)


def test_a_recipe_can_not_be_changed() -> None:
    with pytest.raises(ValidationError):
        Recipe(name="a").seed = 1  # type: ignore[misc]


# --set.


def test_overrides_win_and_later_ones_win_over_earlier_ones(write: Any) -> None:
    loaded = recipe.load(
        write(FULL),
        ["distill.train.epochs=1", "distill.train.epochs=3", "prune=false", "seed=5",
         "export.targets=[a, b]", "teacher.train.ema=0.9", "teacher.zero_init_residual=true"],
    )  # fmt: skip
    assert loaded.distill is not None
    assert loaded.distill.train.epochs == 3
    assert loaded.distill.train.batch_size == 32
    assert loaded.prune is None
    assert loaded.seed == 5
    assert loaded.export == ExportSection(targets=("a", "b"))
    assert loaded.teacher.train.ema == 0.9
    assert loaded.teacher.zero_init_residual


def test_a_stages_own_train_wins_over_a_shared_override(write: Any) -> None:
    loaded = recipe.load(write(FULL), ["train.epochs=9"])
    assert loaded.teacher.train.epochs == 2
    assert loaded.distill is not None
    assert loaded.distill.train.epochs == 9


def test_data_as_text_sets_the_source_only(write: Any) -> None:
    path = write("name: a\ndata: {size: 32}")
    source = "imagefolder:/a b#c: d"
    loaded = recipe.load(path, [f"data={source}"])
    assert loaded.data.source == source
    assert loaded.data.size == 32


def test_the_size_of_one_data_set_is_not_anothers(write: Any) -> None:
    sized = "name: a\ndata: {source: digits, size: 16, validation: 0.2}\n"
    base = write(sized, "base.yaml")
    above = write("extends: base.yaml\nname: b\ndata: imagefolder:photos\n")
    for loaded in (recipe.load(above), recipe.load(base, ["data=imagefolder:photos"])):
        assert (loaded.data.size, loaded.data.validation) == (None, 0.2)
    for overrides in (["data.size=48", "data=cifar10:x"], ["data=cifar10:x", "data.size=48"]):
        assert recipe.load(base, overrides).data.size == 48
    for same in ("data=digits", "seed=1"):
        assert recipe.load(base, [same]).data.size == 16


def test_an_override_adds_a_section(write: Any) -> None:
    loaded = recipe.load(write("name: a"), ["prune.macs=.25", "report="])
    assert loaded.prune is not None
    assert loaded.prune.macs == 0.25
    assert loaded.report is not None


def test_a_section_set_to_false_and_then_written_to_starts_from_its_defaults(write: Any) -> None:
    path = write("name: a\nprune: {macs: 0.5, round_to: 4}")
    loaded = recipe.load(path, ["prune=false", "prune.macs=0.3"])
    assert loaded.prune is not None
    assert (loaded.prune.macs, loaded.prune.round_to) == (0.3, 8)
    assert problems(path, ("prune=false", "prune.round_to=2")) == [
        f"--set prune.round_to=2: prune: {NO_BUDGET}"
    ]


def test_a_quoted_override_is_text(write: Any) -> None:
    assert recipe.load(write("name: a"), ["name='12'"]).name == "12"


@pytest.mark.parametrize("text", ["seed", "=1", "a..b=1", ".seed=1", "", "a" + ".a" * 99 + "=1"])
def test_an_override_without_key_or_value_is_refused(write: Any, text: str) -> None:
    (line,) = problems(write("name: a"), (text,))
    assert line.startswith("--set ")
    assert line.endswith("write KEY=VALUE, e.g. distill.train.epochs=3")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("teachr.model=x", "unknown key 'teachr' (did you mean 'teacher'?)"),
        ("seed.x=1", "seed: should be a whole number, not a mapping"),
        ("export=tflite", "export: should be a mapping of settings, not 'tflite'"),
        ("extends=quickstart", "only a recipe file can extend another"),
        ("data=false", "data: should be a mapping of settings, not false"),
        ("teacher=false", "teacher: should be a mapping of settings, not false"),
        ("data=''", "data: is empty"),
        ("teacher.std=[0.0]", "teacher.std.0: 0.0 is not greater than 0"),
        ("teacher.std=[]", "teacher.std: is empty"),
        (
            "prune={macs: 2}",
            f"prune.macs: 2 {NO_SHARE}",
        ),
    ],
)
def test_mistakes_in_overrides_name_the_override(write: Any, text: str, line: str) -> None:
    assert problems(write("name: a"), (text,)) == [f"--set {text}: {line}"]


def test_an_override_that_is_not_yaml_is_told(write: Any) -> None:
    (line,) = problems(write("name: a"), ("export.targets=[a",))
    assert line.startswith("--set export.targets=[a:1:3: not valid YAML: ")


# extends.


def test_extends_merges_mappings_and_replaces_lists(write: Any) -> None:
    base = "name: base\ntrain: {epochs: 4}\nexport: {targets: [a, b]}\nverify: {samples: 9}"
    write(base, "b.yaml")
    write("extends: b.yaml\nverify: {agreement: 0.5}\ntrain: {batch_size: 8}", "m.yaml")
    loaded = recipe.load(write("extends: m.yaml\nname: top\nexport: {targets: [c]}\nverify:"))
    assert loaded.name == "top"
    assert loaded.export == ExportSection(targets=("c",))
    assert loaded.verify == VerifySection(samples=9, agreement=0.5)
    assert loaded.teacher.train.of() == TrainSection(epochs=4, batch_size=8)


def test_extends_takes_a_shipped_name_and_false_leaves_a_stage_out(write: Any) -> None:
    loaded = recipe.load(write("extends: quickstart\nname: mine\nprune: false\ndata: cifar10:x"))
    shipped = recipe.load("quickstart")
    assert loaded.prune is None
    assert loaded.distill == shipped.distill
    assert loaded.data == shipped.data.model_copy(update={"source": "cifar10:x", "size": None})


def test_extends_is_relative_to_the_file(write: Any, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write("name: base", "b.yaml")
    write("extends: ../b.yaml", "sub/m.yaml")
    assert recipe.load(write("extends: sub/m.yaml")).name == "base"


def test_extends_reaches_nothing_outside_the_folder(write: Any, tmp_path: Path) -> None:
    secret = "root:$6$salt$hash:19000:0:99999:7:::"
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("shadow", "secret.yaml"):
        (outside / name).write_text(f"{secret}\n{secret}")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.yaml").symlink_to(outside / "secret.yaml")
    (tmp_path / "in" / "notes.txt").write_text(secret)
    for value in (outside / "shadow", outside / "secret.yaml", "../outside/secret.yaml",
                  "link.yaml", "./notes.txt", "/dev/stdin"):  # fmt: skip
        (line,) = problems(write(f"extends: {value}", "in/r.yaml"))
        assert "is neither a shipped recipe nor a .yaml file below" in line, line
        assert "$6$" not in line


def test_what_is_no_file_is_refused_and_not_waited_for(write: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    said = "is a pipe, a socket or a device, not a file; copy it into a file"
    assert problems(tmp_path / "pipe.yaml") == [f"pipe.yaml: {said}"]
    assert problems(write("extends: pipe.yaml")) == [f"r.yaml:1: extends: pipe.yaml: {said}"]
    assert problems(Path("/dev/zero")) == [f"zero: {said}"]


def test_merge_keys_are_refused_at_once(write: Any) -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 40)]
    told = problems(write("\n".join(lines)))
    assert "r.yaml:2: a merge key (<<) is not read; write its keys out" in told
    assert recipe.load(write("name: a\nextends: quickstart\ndescription: '<<'")).name == "a"


def test_a_problem_in_a_base_names_the_base(write: Any) -> None:
    write("name: base\nseeed: 1", "b.yaml")
    assert problems(write("extends: b.yaml\nseed: x")) == [
        "r.yaml:2: seed: should be a whole number, not 'x'",
        "b.yaml:2: unknown key 'seeed' (did you mean 'seed'?)",
    ]


def test_a_circle_and_a_long_chain_are_refused(write: Any) -> None:
    write("extends: r.yaml", "b.yaml")
    (line,) = problems(write("extends: b.yaml"))
    assert line == "b.yaml:1: extends: goes in a circle: r.yaml -> b.yaml -> r.yaml"
    for i in range(8):
        write(f"extends: {i + 1}.yaml", f"{i}.yaml")
    write("name: end", "8.yaml")
    (line,) = problems(write("extends: 0.yaml"))
    assert line.endswith("extends: more than 8 recipes extend one another")
    assert recipe.load(write("extends: 2.yaml")).name == "end"


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("quikstart", "unknown recipe 'quikstart' (did you mean 'quickstart'?); known: "),
        ("none.yaml", "none.yaml: no such file"),
        ("[a]", "should be a recipe's name or file, not a list"),
        ('"\\0/x"', "neither a shipped recipe"),
    ],
)
def test_extending_nothing_names_the_line(write: Any, value: str, line: str) -> None:
    (told,) = problems(write(f"name: a\nextends: {value}"))
    assert told.startswith("r.yaml:2: extends: ")
    assert line in told


# Mistakes in a file.


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("teachr: {model: x}", "2: unknown key 'teachr' (did you mean 'teacher'?)"),
        ("distill:\n  train:\n    epoch: 3",
         "4: unknown key 'epoch' in distill.train (did you mean 'epochs'?)"),
        ("train: {epocs: 3}", "2: unknown key 'epocs' in train (did you mean 'epochs'?)"),
        ("verify: {zzz: 1}",
         "2: unknown key 'zzz' in verify; known: samples, agreement, layer_codes, "
         "layer_samples, worst_codes, mean_codes, float_tolerance, half_tolerance, on, on_samples, "
         "prove"),
        ("prune:\n  macs: 1.5", f"3: prune.macs: 1.5 {NO_SHARE}"),
        ("prune: {macs: 0}", f"2: prune.macs: 0 {NO_SHARE}"),
        ("prune:\n  round_to: 4", f"2: prune: {NO_BUDGET}"),
        ("distill: {alpha: 1.1}", "2: distill.alpha: 1.1 is not at most 1"),
        ("seed: -1", "2: seed: -1 is not at least 0"),
        ("seed: 1.0", "2: seed: should be a whole number, not 1.0"),
        ("seed: true", "2: seed: should be a whole number, not true"),
        ("seed: 99999999999999999999", "2: seed: should be a whole number, not 1e+20"),
        ("description: 5", "2: description: should be text, not 5; put it in quotes"),
        ("description:", "2: description: should be text, not empty"),
        ("train: {learning_rate: fast}", "2: train.learning_rate: should be a number, not 'fast'"),
        ("train: {learning_rate: .nan}",
         "2: train.learning_rate: should be a finite number, not nan"),
        ("train: {ema: 1}", "2: train.ema: 1 is not less than 1"),
        ("teacher: {zero_init_residual: 1}",
         "2: teacher.zero_init_residual: should be true or false, not 1"),
        ("teacher: [a]", "2: teacher: should be a mapping of settings, not a list"),
        ("train: 3", "2: train: should be a mapping of settings, not 3"),
        ("distill: true", "2: distill: should be a mapping of settings, not true"),
        ("quantize: {method: qatt}",
         "2: quantize.method: unknown value 'qatt' (did you mean 'qat'?); known: qat, ptq, file"),
        ("quantize: {method: [1]}",
         "2: quantize.method: unknown value a list; known: qat, ptq, file"),
        ("version: 2", "2: version: unknown value 2; known: 1"),
        ("train:\n  augment:\n  - crop\n  - flop",
         "5: train.augment.1: unknown value 'flop' (did you mean 'flip'?); "
         "known: crop, resized-crop, flip, cutout, randaugment, trivialaugment"),
        ("export: {targets: []}", "2: export.targets: is empty"),
        ("export: {targets: [a, a]}", "2: export.targets: names 'a' twice"),
        ("export: {targets: ['']}", "2: export.targets.0: is empty"),
        ("export: {targets: a}", "2: export.targets: should be a list such as [a, b], not 'a'"),
        ("teacher: {mean: [0.5]}", "2: teacher: `mean` and `std` go together; give both"),
        ("teacher: {mean: [0.5, 0.5], std: [1]}",
         "2: teacher.mean: should hold 1 value, or 3 (red, green, blue)"),
        ("verify:", "2: verify: there are no files to work on; "
         "add `export:` or set it to false"),
        ("benchmark:", "2: benchmark: there are no files to work on; "
         "add `export:` or set it to false"),
        ("1: a\n[1]: b", "3: a key should be a plain name"),
        ("seed: 1\nseed: 2", "3: key 'seed' stands twice, first in line 2; remove one"),
        ("teacher: {model: a, model: b}",
         "2: key 'model' stands twice, first in line 2; remove one"),
        ("description: !!python/object/apply:os.system [ls]",
         "2: tag !!python/object/apply:os.system is not allowed; remove it"),
        ("description: !!python/name:os.system",
         "2: tag !!python/name:os.system is not allowed; remove it"),
        ("description: !!binary aGk=", "2: tag !!binary is not allowed; remove it"),
        ("seed: !!int x", "2: tag !!int is not allowed; remove it"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_line(write: Any, text: str, line: str) -> None:
    assert f"r.yaml:{line}" in problems(write(f"name: a\n{text}\n"))


@pytest.mark.parametrize("name", ["a b", "-a", "", "a/b", "a" * 65, "a\n"])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="is no name: it takes up to 64 letters"):
        recipe.load_mapping({"name": name})


def test_all_problems_are_told_at_once_and_each_once(write: Any) -> None:
    text = FULL + "teachr: 1\nseed: x\nseed: 3\n"
    assert problems(write(text.replace("epochs: 7", "epochs: -7")), ("prune.macs=2",)) == [
        "r.yaml:17: key 'seed' stands twice, first in line 16; remove one",
        "r.yaml:16: seed: should be a whole number, not 'x'",
        "r.yaml:2: train.epochs: -7 is not at least 0",
        f"--set prune.macs=2: prune.macs: 2 {NO_SHARE}",
        "r.yaml:15: unknown key 'teachr' (did you mean 'teacher'?)",
    ]


def test_thousands_of_problems_are_cut_short(write: Any) -> None:
    lines = problems(write("name: a\n" + "".join(f"key{i}: 1\n" for i in range(3000))))
    assert len(lines) == 21
    assert lines[-1] == "and 2,980 more problems"


def test_a_name_that_is_missing_names_the_file(write: Any) -> None:
    assert problems(write("seed: 1")) == ["r.yaml: name: is missing"]


# Files that are no recipes.


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "r.yaml: is empty; start with `extends: quickstart`"),
        (b"# nothing\n", "r.yaml: is empty; start with `extends: quickstart`"),
        (b"- a\n", "r.yaml: should hold `key: value` lines at the top"),
        (b"just text", "r.yaml: should hold `key: value` lines at the top"),
        (b"\xff\xfe\x00", "r.yaml: is not a text file in UTF-8"),
        (b"name: a\nseed: \x00", "r.yaml:2: holds the control character U+0000"),
        (b"#" * ((1 << 20) + 1), "r.yaml: is larger than 1 MiB; that is no recipe"),
        (b"name: a\n" + b"a: [" * 40, "r.yaml: is nested more than 32 levels deep, "
         "or within itself"),
        (b"a: [" + b"1," * 10_000 + b"]", "r.yaml: holds more than 10,000 values, "
         "aliases included"),
        (b"a: &a\n  b: *a\n", "r.yaml: is nested more than 32 levels deep, "
         "or within itself"),
    ],
)  # fmt: skip
def test_other_files_get_one_sentence(write: Any, content: bytes, line: str) -> None:
    assert problems(write(content)) == [line]


def test_an_alias_bomb_is_refused(write: Any) -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 10)]
    (line,) = problems(write("\n".join(lines)))
    assert line == "r.yaml: holds more than 10,000 values, aliases included"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name: a\nseed: [1\n", "3:1"),
        ("name: a\n\tseed: 1\n", "2:1"),
        ("name: 'a\n", "2:1"),
        ("name: a\n---\nname: b\n", "2:1"),
        ("name: *nothing\n", "1:7"),
        ("name: a: b\n", "1:8"),
    ],
)
def test_syntax_errors_name_line_and_column(write: Any, text: str, place: str) -> None:
    (line,) = problems(write(text))
    assert line.startswith(f"r.yaml:{place}: not valid YAML: ")


def test_missing_files_folders_and_unknown_names(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.yaml") == ["none.yaml: no such file"]
    assert problems("none.yaml") == ["none.yaml: no such file"]
    assert problems(tmp_path)[0].endswith("is a folder, not a file")
    (line,) = problems("quickstrt")
    assert line.startswith("unknown recipe 'quickstrt' (did you mean 'quickstart'?); known: ")
    for name in ("a" * 5000, "a" * 5000 + ".yaml", "\0", "\0.yaml", ""):
        assert len(problems(name)) == 1


PUNCTUATION = st.text(alphabet="[]{}&*!|>%@-?:,#'\"\\ \n\t0aU~.", max_size=60)


@settings(deadline=None)
@given(st.text() | PUNCTUATION | PUNCTUATION.map("a: {}".format))
def test_any_text_is_read_or_refused_in_plain_words(text: str) -> None:
    assert refusal(lambda: documents.parse(text, "r.yaml", KIND)).startswith(("r.yaml", "read"))


@settings(deadline=None)
@given(st.text() | PUNCTUATION | PUNCTUATION.map("seed={}".format))
def test_any_override_is_taken_or_refused_in_plain_words(text: str) -> None:
    told = refusal(lambda: recipe.load_mapping({"name": "a"}, [text]))
    assert told.startswith(("--set ", "read"))


def refusal(reading: Callable[[], Any]) -> str:
    """What bad input is told, or `read`."""
    try:
        reading()
    except BadInput as error:
        return str(error)
    return "read"


# From programs, and back to text.


def test_mappings_load_like_files() -> None:
    values = {"name": "a", "export": {"targets": ["x"]}, "verify": {}, "teacher": None}
    loaded = recipe.load_mapping(values, ["data=digits", "seed=3"])
    assert loaded == Recipe(
        name="a", seed=3, export=ExportSection(targets=("x",)), verify=VerifySection()
    )
    assert values["teacher"] is None
    with pytest.raises(BadInput, match=f"^here: prune.macs: 3 {NO_SHARE}$"):
        recipe.load_mapping({"name": "a", "prune": {"macs": 3}}, where="here")


def test_one_section_can_be_checked() -> None:
    assert recipe.checked(ExportSection, {"targets": ["a"]}) == ExportSection(targets=("a",))
    with pytest.raises(BadInput, match=r"^the command line: unknown key 'target' \(did you mean"):
        recipe.checked(ExportSection, {"target": ["a"], "targets": ["a"]})


def test_a_recipe_made_in_code_is_checked_too() -> None:
    with pytest.raises(ValidationError, match="no files to work on"):
        Recipe(name="a", verify=VerifySection())


def test_to_mapping_loads_back(write: Any) -> None:
    loaded = recipe.load(write(FULL))
    values = recipe.to_mapping(loaded)
    assert json.loads(json.dumps(values)) == values
    assert recipe.load_mapping(values) == loaded
    assert "prune" not in recipe.to_mapping(recipe.load(write(FULL), ["prune=false"]))


NAMES = st.lists(st.text(min_size=1), min_size=1, unique=True).map(tuple)
TRAIN = st.fixed_dictionaries({
    "epochs": st.integers(0, 1000), "learning_rate": st.floats(1e-300, 100),
    "momentum": st.floats(0, 0.99),
    "ema": st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True),
    "optimizer": st.sampled_from(["sgd", "adamw"]),
    "augment": st.lists(st.sampled_from(["crop", "flip", "cutout"]), unique=True).map(tuple),
})  # fmt: skip
CHANNELS = st.lists(st.floats(0.001, 1), min_size=3, max_size=3).map(tuple)
RECIPES = st.builds(
    Recipe,
    name=st.text(string.ascii_letters + string.digits, min_size=1, max_size=64),
    description=st.text(),
    seed=st.integers(0, 2**32 - 1),
    data=st.builds(recipe.DataSection, source=st.text(min_size=1),
                   size=st.none() | st.integers(8, 1024)),
    teacher=CHANNELS.flatmap(lambda mean: st.builds(
        recipe.TeacherSection, checkpoint=st.none() | st.text(min_size=1), mean=st.just(mean),
        std=CHANNELS, train=TRAIN)),
    distill=st.none() | st.builds(recipe.DistillSection, loss=st.sampled_from(["kd", "none"]),
                                  alpha=st.floats(0, 1), train=TRAIN),
    prune=st.none() | st.builds(recipe.PruneSection, macs=st.floats(0.01, 0.99), train=TRAIN),
    quantize=st.none() | st.builds(recipe.QuantizeSection, train=TRAIN),
    export=st.builds(ExportSection, targets=NAMES),
    verify=st.none() | st.builds(VerifySection, samples=st.none() | st.integers(1, 10**9)),
    benchmark=st.none() | st.builds(recipe.BenchmarkSection, devices=NAMES),
    report=st.none() | st.builds(recipe.ReportSection, title=st.none() | st.text(min_size=1)),
)  # fmt: skip


@settings(deadline=None)
@given(RECIPES)
def test_dump_loads_back_to_an_equal_recipe(made: Recipe) -> None:
    text = recipe.dump(made)
    read = documents.parse(text, "lock", KIND)
    assert recipe.load_mapping(read.tree) == made
    assert yaml.safe_load(text) is not None  # any YAML reader takes it


@pytest.mark.parametrize(
    "text", ["1e-3", "off", "~", "", "0o17", "010", "2026-11-21", "1:30", "=", "<<", "\ud800",
             "a: b # c", "'", "\x85", "a\u2028\ufeff", " a\n\n b ", "!x", "&a", "*a", "NaN", ".inf"]
)  # fmt: skip
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    written = documents.dump({"a": text, "b": [text]})
    assert documents.parse(written, "lock", KIND).tree == {"a": text, "b": (text,)}


# What is shipped.


def test_shipped_recipes_load_and_carry_their_files_names() -> None:
    found = dict(recipe.recipes())
    assert "quickstart" in found
    for name, description in found.items():
        loaded = recipe.load(name)
        assert loaded.name == name
        assert loaded.description == description != ""
        path = recipe.shipped_folder() / f"{name}.yaml"
        first = path.read_text("utf-8").splitlines()[0]
        assert first == "# yaml-language-server: $schema=schema.json"


def test_quickstart_goes_the_whole_way() -> None:
    loaded = recipe.load("quickstart")
    assert all(getattr(loaded, name) is not None for name in Recipe.model_fields)
    assert loaded.export is not None
    assert set(loaded.export.targets) == {
        "tflite-fp32", "tflite-int8", "onnx-fp32", "onnx-int8", "coreml-fp16", "coreml-int8"
    }  # fmt: skip


def test_an_installed_package_has_its_own_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "_recipes").mkdir()
    (tmp_path / "_recipes" / "own.yaml").write_text("name: own\ndescription: mine\n")
    monkeypatch.setattr(edgeres, "__file__", str(tmp_path / "__init__.py"))
    assert recipe.recipes() == [("own", "mine")]
    assert recipe.load("own").name == "own"


def test_the_page_of_every_key_is_current_and_whole() -> None:
    page = (Path(__file__).parents[1] / "docs" / "recipe.md").read_text("utf-8")
    assert page.splitlines() == reference(), "make schema"
    titles = set(re.findall(r"^## (.*)$", page, re.MULTILINE))
    links = set(re.findall(r"\]\(#(.*?)\)", page))
    assert links <= {title.replace(".", "").lower() for title in titles}
    for name, section in recipe.schema()["$defs"].items():
        for key in section["properties"]:
            assert f"| `{key}` |" in page, (name, key)


def test_schema_json_is_current() -> None:
    shipped = json.loads((recipe.shipped_folder() / "schema.json").read_text("utf-8"))
    assert shipped == recipe.schema(), "run `make schema`"


def test_schema_describes_every_setting_and_lets_sections_be_empty_or_false() -> None:
    made = recipe.schema()
    settings: dict[str, Any] = {RecipeFile.__name__: made, **made["$defs"]}
    for name, model in settings.items():
        assert model["description"], name
        for key, value in model["properties"].items():
            is_section = any("$ref" in option for option in value.get("anyOf", ()))
            assert "description" in value or is_section, f"{name}.{key}"
    prune = made["properties"]["prune"]["anyOf"]
    assert {"type": "null"} in prune
    assert {"const": False} in prune
    assert {"const": False} not in made["properties"]["teacher"]["anyOf"]
    assert made["additionalProperties"] is False


def test_every_number_has_bounds() -> None:
    limits = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}

    def check(value: Any, path: str) -> None:
        if isinstance(value, dict):
            if value.get("type") in ("integer", "number") and "const" not in value:
                assert limits & value.keys(), path
            for key, item in value.items():
                check(item, f"{path}.{key}")
        elif isinstance(value, list):
            for item in value:
                check(item, path)

    check(recipe.schema(), "")


def test_every_section_refuses_unknown_keys_and_changes() -> None:
    for name in recipe.__all__:
        kind = getattr(recipe, name)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            assert kind.model_config["extra"] == "forbid"
            assert kind.model_config["frozen"] is True


QAT = "has no effect: that takes quantize.method=qat"


@pytest.mark.parametrize(
    ("base", "overrides", "said"),
    [
        ("quickstart", ["quantize.train.epochs=3"], []),
        ("quickstart", ["quantize.method=ptq"], []),
        ("quickstart", ["quantize.method=ptq", "quantize.train.epochs=3"],
         [f"quantize.train.epochs {QAT}"]),
        ("quickstart", ["quantize={method: ptq, alpha: 0.2}"], [f"quantize.alpha {QAT}"]),
        ("quickstart", ["quantize.method=file", "quantize.ranges=mse"],
         ["quantize.ranges has no effect: that takes quantize.method=ptq or qat"]),
        ("quickstart", ["prune.sparsity=0.01", "prune.sparse_epochs=2"],
         ["prune.sparsity, prune.sparse_epochs have no effect: that takes "
          "prune.criterion=group-sparsity"]),
        ("quickstart", ["prune.criterion=group-sparsity", "prune.sparsity=0.01"], []),
        ("quickstart", ["train.momentum=0.8", "teacher.train.optimizer=adamw"], []),
        ("quickstart", ["train.momentum=0.8", "train.optimizer=adamw"],
         ["train.momentum has no effect: that takes teacher.train.optimizer=sgd"]),
        ("quickstart", ["teacher.claimed=0.9"],
         ["teacher.claimed has no effect: that takes a teacher with weights, e.g. "
          "teacher.checkpoint=FILE"]),
        ("quickstart", ["quantize.method=ptq", "quantize.method=qat", "quantize.alpha=0.2"], []),
    ],
)  # fmt: skip
def test_what_is_set_and_has_no_effect_is_said(
    base: str, overrides: list[str], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.load(base, overrides)
    assert capsys.readouterr().err.splitlines() == [f"note: {line}" for line in said]


def test_a_persons_file_is_looked_at_too_but_no_base_and_no_record(
    write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write("extends: quickstart\nname: b\ndistill: {loss: mse, temperature: 2}\n", "base.yaml")
    found = recipe.load(write("extends: base.yaml\nquantize: {method: ptq, cache: {top: 3}}\n"))
    assert capsys.readouterr().err == f"note: quantize.cache.top {QAT}\n"
    assert recipe.load(write(recipe.dump(found), "record.yaml")) == found
    text = recipe.dump(found)
    recipe.load_text(text, "record")
    recipe.load_mapping(yaml.safe_load(text), ["train.epochs=3"])
    assert capsys.readouterr().err == (
        "note: train.epochs has no effect: each stage that trains has its own; set it there\n"
    )


def test_every_key_of_which_it_is_said_is_one() -> None:
    for stage, rules in idle._IDLE.items():
        section = Recipe.model_fields[stage].annotation
        (kind,) = (k for k in (section, *getattr(section, "__args__", ()))
                   if hasattr(k, "model_fields"))  # fmt: skip
        for key in (key for rule in rules for key in rule.keys):
            known = kind
            for part in key.split("."):
                assert part in known.model_fields, (stage, key)
                known = known.model_fields[part].annotation
