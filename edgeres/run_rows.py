"""What tells one run from others: a run in, a row of `edgeres list runs` out."""

from __future__ import annotations

from edgeres import run_state
from edgeres.errors import BadInput
from edgeres.runs import Run
from edgeres.text import accuracy


def row(run: Run) -> dict[str, object]:
    """Date, state, source, data, network and top-1; of a damaged run what is wrong with it."""
    state = run_state.of(run.path)
    try:
        if run.damage:
            raise BadInput(run.damage)
        recipe = run.recipe
    except BadInput as error:
        return {"run": run.name, "date": state.at[:16].replace("T", " "),
                "state": f"damaged: {error}", "source": None, "data": None, "model": None,
                "top-1": "-", "steps": 0, "note": run_state.note(run.path)}  # fmt: skip
    model = next((run.artifacts[s] for s in ("quantize", "prune", "distill", "teacher")
                  if s in run.artifacts), None)  # fmt: skip
    return {
        "run": run.name, "date": state.at[:16].replace("T", " "),
        "state": str(state),
        "source": recipe.teacher.checkpoint or recipe.teacher.model,
        "data": recipe.data.source, "model": model.facts["model"] if model else None,
        "top-1": accuracy(model.facts["test"]) if model else "-",
        "steps": len(run.artifacts), "note": run_state.note(run.path),
    }  # fmt: skip
