"""An artifact's key stands for all that made it."""

from __future__ import annotations

from edgeres.artifact import artifact_key


def test_the_key_covers_what_decides_the_result() -> None:
    base = {"stage": "a", "version": 1, "section": {"x": 1}, "libraries": {"torch": "2.13"},
            "seed": 0, "parents": {"data": "d"}}  # fmt: skip
    keys = {artifact_key(**{**base, **change}) for change in (
        {}, {"stage": "b"}, {"version": 2}, {"section": {"x": 2}}, {"libraries": {"torch": "2.14"}},
        {"seed": 1}, {"parents": {"data": "e"}})}  # fmt: skip
    assert len(keys) == 7
    assert artifact_key(**base) == artifact_key(**dict(reversed(base.items())))
