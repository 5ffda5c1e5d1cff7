"""Plan, then perform: a recipe flows in, finished artifacts and a run folder come out.

`steps` turns a recipe into an ordered list of steps; `plan` looks each one up in the store;
`perform` makes what is missing.
"""

from edgeres.pipeline._performing import Reporter, perform
from edgeres.pipeline._planning import Planned, Step, plan, steps, until

__all__ = ["Planned", "Reporter", "Step", "perform", "plan", "steps", "until"]
