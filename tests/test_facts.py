"""The forms of documents: each check takes any value; what isn't a number has a sentence, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgeres import facts, registry
from edgeres.shape import wrong
from edgeres.stages import verify

VALUES = (None, True, -1, 5, 1.5, float("nan"), 10**400, "", "x", "\ud800", [], ["x"], {}, {"a": 1})


def checks(form: Any) -> Iterator[Callable[[Any], bool]]:
    """The checks in a form, and in the forms in it."""
    if isinstance(form, dict):
        for inner in form.values():
            yield from checks(inner)
    elif isinstance(form, list):
        yield from checks(form[0])
    elif callable(form):
        yield form


FORMS = {
    f"{module.__name__}.{name}": form
    for module in (facts, registry)
    for name, form in vars(module).items()
    if name.lstrip("_").isupper() and isinstance(form, dict) and list(checks(form))
}


@pytest.mark.parametrize("name", FORMS)
def test_every_check_takes_any_value(name: str) -> None:
    for check in checks(FORMS[name]):
        for value in VALUES:
            assert wrong(check, value) is None or isinstance(wrong(check, value), str)


def test_every_form_is_asked() -> None:
    assert len(FORMS) >= 15


def test_a_gate_that_measured_nothing_says_so() -> None:
    gate = {"name": "top-1 agreement", "measured": None, "comparison": ">=", "limit": 0.99,
            "unit": "", "passed": False}  # fmt: skip
    (sentence,) = verify.failures({"files": [{"target": "tflite-int8", "gates": [gate]}]})
    assert sentence == "tflite-int8: top-1 agreement nan, needs >= 0.99"
