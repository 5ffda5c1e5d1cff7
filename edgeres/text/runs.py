"""What became of runs: reports, bundles, channels, trackers, room on the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeres.text import chain, kilobytes, start, table


def shown(result: Mapping[str, Any]) -> str:
    """What a run is, then its steps."""
    keys = ("run", "date", "state", "source", "data", "model", "top-1", "note", "report")
    facts = {key: result[key] for key in keys}
    facts["promoted"] = ", ".join(result["promoted"])
    facts["plugins"] = "; ".join(f"{who}: {what}" for who, what in result["plugins"].items())
    width = max(map(len, facts)) + 2
    lines = [f"{key:<{width}}{start(str(value), 200)}" for key, value in facts.items() if value]
    steps = table(result["steps"], ("step", "seconds", "path")) if result["steps"] else "no steps"
    return "\n".join([*lines, "", steps])


def deleted(result: Mapping[str, Any]) -> str:
    """What is gone."""
    return f"deleted {result['path']}; `edgeres clean` frees what only it used"


def report(result: Mapping[str, Any]) -> str:
    """Where the page is, and its drawings."""
    drawn = result["figures"]
    return chain.run(result) + (f"\n{len(drawn)} drawings: {drawn[0]} and others" if drawn else "")


def bundle(result: Mapping[str, Any]) -> str:
    """Where the archive is."""
    signed = f"signed with {result['fingerprint']}" if result["signed"] else "NOT SIGNED"
    size = kilobytes(result["size_bytes"])
    notes = "".join(f"\nnote: {note}" for note in result["notes"])
    return (f"{result['bundle']}  ({result['target']}, {size}, serial {result['serial']})\n{signed}"
            f"{notes}\ncheck it anywhere: edgeres verify {result['bundle']}")  # fmt: skip


def page_sizes(result: Mapping[str, Any]) -> str:
    """A line per library, then the verdict."""
    lines = [f"{start(one['name'], 120)}: {one['problem'] or 'ok'}" for one in result["libraries"]]
    verdict = "loads" if result["passed"] else "DOESN'T LOAD"
    return "\n".join([*lines, f"{result['file']} {verdict} with memory pages of 16 KiB"])


def trusted(result: Mapping[str, Any]) -> str:
    """What was done, then the keys that are trusted."""
    rows = [{"name": k["name"], "fingerprint": k["fingerprint"], "since": k["added"]}
            for k in result["keys"]]  # fmt: skip
    done = [f"{verb} {result[verb]}" for verb in ("added", "removed") if result[verb]]
    listed = table(rows, tuple(rows[0])) if rows else "no key is trusted yet: edgeres trust KEY"
    return "\n".join([*done, listed])


def drift(result: Mapping[str, Any]) -> str:
    """A row per feature, then the verdict."""
    rows = [{"feature": f["feature"], "distance": f"{f['distance']:.3f}",
             "threshold": f"{f['threshold']:.3f}", "drifted": "YES" if f["drifted"] else "no"}
            for f in result["features"]]  # fmt: skip
    verdict = "drift" if result["drifted"] else "no drift"
    return f"{table(rows, tuple(rows[0]))}\n{verdict} in {result['n']} inferences"


def promoted(entry: Mapping[str, Any]) -> str:
    """What a channel points to now."""
    return f"{entry['channel']}: {entry['run']}"


def history(entries: Sequence[Mapping[str, Any]]) -> str:
    """A row per promotion and rollback."""
    rows = [{"at": e["at"], "channel": e["channel"], "action": e["action"], "run": e["run"],
             "gates": "met" if e["passed"] else "NOT MET", "reason": e["reason"]}
            for e in entries]  # fmt: skip
    return table(rows, tuple(rows[0])) if rows else "nothing was promoted yet"


def tracked(result: Mapping[str, Any]) -> str:
    """Where a tracker keeps a run."""
    if result["tracker"] == "tensorboard":
        return f"{result['scalars']} scalars; look at them: tensorboard --logdir {result['folder']}"
    models = [f"  {name}, version {version}" for name, version in result["models"].items()]
    where = f"{result['server']}, experiment {result['experiment']}, run {result['run_id']}"
    return "\n".join([where, *models])


def clean(result: Mapping[str, Any]) -> str:
    """What goes."""
    lines = [f"{row['artifact']}  {kilobytes(row['size_bytes'])}" for row in result["artifacts"]]
    return "\n".join([*lines, f"would free {kilobytes(result['freed_bytes'])}"])


def cleaned(result: Mapping[str, Any]) -> str:
    """What was freed, or would be."""
    return f"freed {kilobytes(result['freed_bytes'])}" if result["removed"] else clean(result)
