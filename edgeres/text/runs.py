"""What became of runs: reports, bundles, channels, trackers, room on the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypedDict

from edgeres.text import chain, kilobytes, start, table

if TYPE_CHECKING:
    from edgeres.records import Facts


class RunStep(TypedDict):
    """A step of a run and its artifact."""

    step: str
    seconds: float
    digest: str
    path: str


class Shown(TypedDict):
    """What a run is, and its row of `edgeres list runs` with a list of its steps."""

    path: str
    promoted: list[str]
    plugins: Mapping[str, str]
    report: str | None
    steps: list[RunStep]


class Deleted(TypedDict):
    """A run that is gone."""

    run: str
    path: str
    size_bytes: int


class Reported(chain.Ran):
    """A run and the drawings of its report."""

    figures: list[str]


class Library(TypedDict):
    """A library of an Android package."""

    name: str
    problem: str


class PageSizes(TypedDict):
    """Whether a package loads with large pages."""

    file: str
    passed: bool
    libraries: list[Library]


class Key(TypedDict):
    """A key that is trusted."""

    name: str
    fingerprint: str
    added: str


class Trusted(TypedDict):
    """What was done about keys, and those that are trusted."""

    added: str | None
    removed: str | None
    keys: list[Key]


class Feature(TypedDict):
    """How far a log is from the test set in one feature."""

    feature: str
    distance: float
    threshold: float
    drifted: bool


class Drift(TypedDict):
    """The same in all of them."""

    drifted: bool
    n: int
    features: list[Feature]


class Entry(TypedDict):
    """`registry.Entry`"""

    number: int
    channel: str
    action: str
    run: str
    artifacts: Mapping[str, str]
    passed: bool
    findings: Sequence[str]
    reason: str
    at: str


class InFolder(TypedDict):
    """What TensorBoard reads."""

    tracker: Literal["tensorboard"]
    folder: str
    scalars: int


class OnServer(TypedDict):
    """What MLflow has."""

    tracker: Literal["mlflow"]
    server: str
    experiment: str
    run_id: str
    models: Mapping[str, int]


class Unused(TypedDict):
    """An artifact that no run refers to."""

    artifact: str
    size_bytes: int


class Cleaned(TypedDict):
    """What goes of a store, or is gone."""

    removed: bool
    artifacts: list[Unused]
    work_bytes: int
    freed_bytes: int


def shown(result: Shown) -> str:
    """What a run is, then its steps."""
    keys = ("run", "date", "state", "source", "data", "model", "top-1", "note", "report")
    row: Mapping[str, object] = result
    facts = {key: row[key] for key in keys}
    facts["promoted"] = ", ".join(result["promoted"])
    facts["plugins"] = "; ".join(f"{who}: {what}" for who, what in result["plugins"].items())
    width = max(map(len, facts)) + 2
    lines = [f"{key:<{width}}{start(str(value), 200)}" for key, value in facts.items() if value]
    steps = table(result["steps"], ("step", "seconds", "path")) if result["steps"] else "no steps"
    return "\n".join([*lines, "", steps])


def deleted(result: Deleted) -> str:
    """What is gone."""
    return f"deleted {result['path']}; `edgeres clean` frees what only it used"


def report(result: Reported) -> str:
    """Where the page is, and its drawings."""
    drawn = result["figures"]
    return chain.run(result) + (f"\n{len(drawn)} drawings: {drawn[0]} and others" if drawn else "")


def bundle(result: Facts) -> str:
    """Where the archive is."""
    signed = f"signed with {result['fingerprint']}" if result["signed"] else "NOT SIGNED"
    size = kilobytes(result["size_bytes"])
    notes = "".join(f"\nnote: {note}" for note in result["notes"])
    return (f"{result['bundle']}  ({result['target']}, {size}, serial {result['serial']})\n{signed}"
            f"{notes}\ncheck it anywhere: edgeres verify {result['bundle']}")  # fmt: skip


def page_sizes(result: PageSizes) -> str:
    """A line per library, then the verdict."""
    lines = [f"{start(one['name'], 120)}: {one['problem'] or 'ok'}" for one in result["libraries"]]
    verdict = "loads" if result["passed"] else "DOESN'T LOAD"
    return "\n".join([*lines, f"{result['file']} {verdict} with memory pages of 16 KiB"])


def trusted(result: Trusted) -> str:
    """What was done, then the keys that are trusted."""
    rows = [{"name": k["name"], "fingerprint": k["fingerprint"], "since": k["added"]}
            for k in result["keys"]]  # fmt: skip
    done = [f"{verb} {result[verb]}" for verb in ("added", "removed") if result[verb]]
    listed = table(rows, tuple(rows[0])) if rows else "no key is trusted yet: edgeres trust KEY"
    return "\n".join([*done, listed])


def drift(result: Drift) -> str:
    """A row per feature, then the verdict."""
    rows = [{"feature": f["feature"], "distance": f"{f['distance']:.3f}",
             "threshold": f"{f['threshold']:.3f}", "drifted": "YES" if f["drifted"] else "no"}
            for f in result["features"]]  # fmt: skip
    verdict = "drift" if result["drifted"] else "no drift"
    return f"{table(rows, tuple(rows[0]))}\n{verdict} in {result['n']} inferences"


def promoted(entry: Entry) -> str:
    """What a channel points to now."""
    return f"{entry['channel']}: {entry['run']}"


def history(entries: Sequence[Entry]) -> str:
    """A row per promotion and rollback."""
    rows = [{"at": e["at"], "channel": e["channel"], "action": e["action"], "run": e["run"],
             "gates": "met" if e["passed"] else "NOT MET", "reason": e["reason"]}
            for e in entries]  # fmt: skip
    return table(rows, tuple(rows[0])) if rows else "nothing was promoted yet"


def tracked(result: InFolder | OnServer) -> str:
    """Where a tracker keeps a run."""
    if result["tracker"] == "tensorboard":
        return f"{result['scalars']} scalars; look at them: tensorboard --logdir {result['folder']}"
    models = [f"  {name}, version {version}" for name, version in result["models"].items()]
    where = f"{result['server']}, experiment {result['experiment']}, run {result['run_id']}"
    return "\n".join([where, *models])


def clean(result: Cleaned) -> str:
    """What goes."""
    lines = [f"{row['artifact']}  {kilobytes(row['size_bytes'])}" for row in result["artifacts"]]
    return "\n".join([*lines, f"would free {kilobytes(result['freed_bytes'])}"])


def cleaned(result: Cleaned) -> str:
    """What was freed, or would be."""
    return f"freed {kilobytes(result['freed_bytes'])}" if result["removed"] else clean(result)
