"""The command init: a few answers in, a commented recipe out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeres import datasets, devices, targets, teachers, terminal
from edgeres.disk import storage_errors
from edgeres.documents import dump
from edgeres.errors import BadInput
from edgeres.recipe import Recipe, TeacherSection, load


@dataclass(frozen=True)
class Answers:
    """What a recipe of one's own says; None is what the shipped recipe says."""

    data: str | None = None
    size_px: int | None = None
    teacher: str | None = None
    student: str | None = None
    targets: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


def asked(base: str) -> Answers:
    """Ask at the terminal, with what the shipped recipe says as defaults.

    An answer that can't be is asked again.
    """
    recipe = load(base)

    def ask(words: str, default: str, check: object) -> str:
        while True:
            answer = terminal.ask(words, default)
            try:
                for part in answer.replace(",", " ").split():
                    check(part)  # type: ignore[operator]
            except BadInput as error:
                terminal.out(f"  {terminal.escaped(str(error))}")
                continue
            return answer

    terminal.out("Enter keeps what is in brackets.")
    data = ask("Images (digits, or NAME:PATH; edgeres list datasets)", recipe.data.source,
               datasets.parse)  # fmt: skip
    size = ask("Pixels of their height and width", str(_default_size(recipe, data)), _size)
    teacher = ask("Big network (edgeres list models, or checkpoint:FILE, torchvision:NAME …)",
                  recipe.teacher.model, _teacher)  # fmt: skip
    known = recipe.distill.student if recipe.distill else "resnet8"
    student = ask("Small network", known, teachers.check_architecture)
    exported = recipe.export.targets if recipe.export else ("tflite-int8",)
    measured = recipe.benchmark.devices if recipe.benchmark else ("host",)
    listed = ask("Files to write (edgeres list targets)", " ".join(exported), targets.require)
    on = ask("Measured on (edgeres list devices)", " ".join(measured), devices.load)
    return Answers(data, int(size), teacher, student, _names(listed), _names(on))


def initialized(file: Path, base: str, answers: Answers) -> str:
    """Write a recipe that extends a shipped one.

    Raises:
        BadInput: the file exists, or an answer names something that isn't there.
    """
    recipe = load(base)
    if file.exists():
        raise BadInput(f"{file}: exists already; choose another name")
    data = answers.data or recipe.data.source
    size = answers.size_px or _default_size(recipe, data)
    answers = replace(answers, data=data, size_px=size)
    text = "".join([
        f"# Starts from the shipped recipe '{base}'; what stands here wins over it.\n",
        "# All keys: edgeres list recipes --schema\n",
        _yaml(extends=base, name=_name(file)), "\n",
        "# Where the images are from: NAME or NAME:PATH, see `edgeres list datasets`; and their\n",
        "# height and width in pixels, from 8 to 1024.\n",
        _yaml(data={"source": answers.data, "size": answers.size_px}), "\n",
        "# The same seed gives the same result.\n", _yaml(seed=recipe.seed),
        *_sections(answers), *_limits(recipe, answers),
    ])  # fmt: skip
    for check, names in (
        (_teacher, (answers.teacher,)),
        (teachers.check_architecture, (answers.student,)),
        (targets.require, answers.targets),
        (devices.load, answers.devices),
    ):
        for name in names:
            if name is not None:
                check(name)
    datasets.parse(str(answers.data))
    with storage_errors(file):
        file.write_text(text, "utf-8")
    load(file)
    name = terminal.escaped(str(file))
    return (
        f"wrote {name}; look at its plan: edgeres run {name} --dry-run\nrun it: edgeres run {name}"
    )


def _sections(answers: Answers) -> Sequence[str]:
    parts = []
    if answers.teacher:
        parts += ["\n# The big network, trained here; or give its weights: `checkpoint: FILE`.\n",
                  _yaml(teacher={"model": answers.teacher})]  # fmt: skip
    if answers.student:
        parts += ["\n# The small network; -w0.5 halves the width of each layer.\n",
                  _yaml(distill={"student": answers.student})]  # fmt: skip
    if answers.targets:
        parts += ["\n# Files for the devices: `edgeres list targets`.\n",
                  _yaml(export={"targets": list(answers.targets)})]  # fmt: skip
    if answers.devices:
        parts += ["\n# Where they are measured: `edgeres list devices`.\n",
                  _yaml(benchmark={"devices": list(answers.devices)})]  # fmt: skip
    return parts


def _limits(recipe: Recipe, answers: Answers) -> Sequence[str]:
    """A limit that any network can keep, in place of those made for the shipped recipe's own."""
    exported = answers.targets or (recipe.export.targets if recipe.export else ())
    if recipe.budgets is None:
        return []
    # only these run on any machine; a limit on a file that nothing measured is missed
    everywhere = [t for t in exported if t.startswith(("tflite-", "onnx-"))]
    everywhere.sort(key=lambda target: not target.endswith("int8"))
    limits = {"limits": [{"target": everywhere[0], "agreement": 0.99}]} if everywhere else False
    return ["\n# Limits of a run, such as size_kb and latency_p95_ms: docs/budgets.md\n",
            _yaml(budgets=limits)]  # fmt: skip


def _teacher(name: str) -> None:
    """Raise BadInput unless a recipe's teacher can have this name."""
    if ":" in name:
        teachers.check(TeacherSection(model=name))
    else:
        teachers.check_architecture(name)


def _default_size(recipe: Recipe, data: str) -> int:
    """The recipe's size of its own data, else the data set's own."""
    own = recipe.data.size if data == recipe.data.source else None
    return own or datasets.default_size(data)


def _size(text: str) -> None:
    if not text.isdecimal() or not 8 <= int(text) <= 1024:
        raise BadInput(f"{text}: write a number of pixels from 8 to 1024")


def _name(file: Path) -> str:
    """A recipe's name from a file's: letters, digits and what else it may have."""
    clean = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in file.stem)
    return clean.strip("._-")[:64] or "recipe"


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _yaml(**values: object) -> str:
    return dump(values)
