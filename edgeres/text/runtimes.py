"""What other runtimes say of files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeres.text import accuracy, kilobytes, start, table

if TYPE_CHECKING:
    from edgeres.records import Certified, OnRuntime

_SHOWN = 4  # sentences of one runtime


def verdicts(files: Sequence[Certified]) -> list[str]:
    """A row per file and runtime, then what was refused and where answers depart."""
    rows, said, introduced = [], [], []
    for file in files:
        for found in file.get("runtimes") or ():
            rows.append({"runtime": found["runtime"], "target": file["target"],
                         "verdict": "passed" if found["passed"] else "FAILED",
                         **_answers(found), **_costs(found)})  # fmt: skip
            who, *rest = sentences(found)
            introduced.append(f"{found['runtime']}: {who}")
            said += [f"{found['runtime']}, {file['target']}: {words}" for words in rest]
    return ["", table(rows, tuple(rows[0])), *dict.fromkeys(introduced), *said] if rows else []


def inspected(found: OnRuntime) -> str:
    """What a runtime says of a file that it only looked at."""
    costs = [f"{name} {value}" for name, value in _costs(found).items() if value != "-"]
    taken = found["taken"]
    operators = (f"{taken} operators taken, " if taken is not None else "") + (
        f"{len(found['refused'])} refused" if found["refused"] else "none refused"
    )
    first = "no answer" if found["error"] else "; ".join([operators, *costs])
    return "\n".join([f"{found['runtime']}: {first}", *(f"  {s}" for s in sentences(found))])


def sentences(found: OnRuntime) -> list[str]:
    """Who was asked, and what stood in its way."""
    who = ", ".join(part for part in (found["version"], found["device"]) if part)
    said = [f"{who} ({found['how']})" if who else found["how"]]
    if found["error"]:
        said.append(f"no answer: {start(found['error'], 200)}")
    refused = found["refused"]
    said += [f"not taken: {start(words, 160)}" for words in refused[:_SHOWN]]
    said += [f"… and {len(refused) - _SHOWN} more not taken"] if len(refused) > _SHOWN else []
    if away := found.get("divergence"):
        said.append(f"the first layer that departs is {away['layer']}: {away['worst']:g} codes")
    if found.get("agreement") is not None and not found["passed"] and found.get("hint"):
        said.append(f"known: {found['hint']}")
    if found.get("compiled"):
        said.append(f"compiled: {', '.join(found['compiled'])}")
    return said


def _answers(found: OnRuntime) -> dict[str, str]:
    if found["agreement"] is None:
        return {"agreement": "-", "equal": "-", "worst": "-", "top-1": "-"}
    equal = found["equal_images"]
    return {"agreement": f"{found['agreement']:.2%}",
            "equal": f"{equal}/{found['n']}" if equal is not None else "-",
            "worst": f"{found['worst_codes']:.4g}", "top-1": accuracy(found["test"])}  # fmt: skip


def _costs(found: OnRuntime) -> dict[str, str]:
    memory = [f"{kind} {kilobytes(size)}" for kind, size in found["memory_bytes"].items()]
    cycles = found["cycles"]
    return {"memory": ", ".join(memory) or "-",
            "cycles": f"{cycles:,}" if cycles is not None else "-"}  # fmt: skip
