"""Plan, then perform: a recipe flows in, finished artifacts and a run folder come out.

`steps` turns a recipe into an ordered list of steps; `plan` looks each one up in the store;
`perform` makes what is missing; `slurm` writes the jobs of a cluster that do.
"""

from edgeres.pipeline._performing import Reporter, perform
from edgeres.pipeline._planning import Given, Planned, Step, only, plan, steps, until

__all__ = ["Given", "Planned", "Reporter", "Step", "only", "perform", "plan", "steps", "until"]
