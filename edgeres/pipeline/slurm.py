"""A recipe as jobs of Slurm: a script that submits one for each step, after those it needs.

Slurm is what most clusters with GPUs have, and its script needs nothing installed but `sbatch`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from edgeres.pipeline._planning import TRAINING, Step

_ON_A_GPU = (*TRAINING, "labels")


def script(chain: Sequence[Step], name: str, command: Sequence[str], folder: Path) -> list[str]:
    """The lines of a script for bash.

    Args:
        name: of the run.
        command: of one step, which its id is added to.
        folder: where the jobs run, since paths in the recipe may be relative.
    """
    lines = [
        "#!/bin/bash",
        f"# The steps of {name}, a job each. Made by edgeres; the options of the jobs are yours.",
        "set -eu",
        'training="${SBATCH_TRAINING---gres=gpu:1}"  # of those that train',
        'others="${SBATCH_OTHERS-}"',
        f"cd {shlex.quote(str(folder))}",
    ]
    jobs: dict[str, str] = {}
    for step in chain:
        job = "job_" + re.sub(r"\W", "_", step.id)
        after = [
            f"{_when(needed)}:${jobs[needed]}" for needed in dict.fromkeys(step.needs.values())
        ]
        depends = f' --dependency="{",".join(after)}" --kill-on-invalid-dep=yes' if after else ""
        options = "$training" if step.stage in _ON_A_GPU else "$others"
        work = shlex.quote(shlex.join([*command, step.id]))
        lines += [f"{job}=$(sbatch --parsable --job-name={step.id} {options}{depends} \\",
                  f"  --wrap {work})", f'echo "{step.id}: job ${job}"']  # fmt: skip
        jobs[step.id] = job
    return lines


def _when(needed: str) -> str:
    """A budget that isn't met fails its job, and the report shows it all the same."""
    return "afterany" if needed == "budgets" else "afterok"
