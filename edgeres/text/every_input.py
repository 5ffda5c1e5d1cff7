"""What is known of a file's codes for every image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeres.records import Proof

_SHOWN = 3


def proofs(files: Iterable[tuple[str, Proof | None]]) -> list[str]:
    """One paragraph for the files that share a proof; none if there is none.

    Args:
        files: their targets, and what is known of each.
    """
    proven = [(target, proof) for target, proof in files if proof]
    if not proven:
        return []
    first, *rest = sentences(proven[0][1])
    return ["", f"{', '.join(target for target, _ in proven)}: {first}",
            *(f"  {sentence}" for sentence in rest)]  # fmt: skip


def sentences(proof: Proof) -> list[str]:
    """The verdict, and what stands in its way."""
    runtimes = ", ".join(proof["runtimes"])
    looked = f"{proof['sums']:,} sums and {proof['pairs']:,} pairs of codes"
    if proof["holds"]:
        return [f"every image has the same codes in {runtimes} (as their kernels round: "
                f"{looked}, {proof['seconds']:.1f} s)"]  # fmt: skip
    said = [f"not every image has the same codes in {runtimes} ({looked})"]
    said += proof["witnesses"][:_SHOWN]
    if proof["differing"]:
        said.append(f"{proof['differing']} of {proof['channels']} channels have a sum that kernels "
                    "round differently; quantize.scheme: w8a8-portable has none")  # fmt: skip
    said += [f"not proven: {words}" for words in proof["unproven"][:_SHOWN]]
    more = len(proof["unproven"]) - _SHOWN
    return said + ([f"… and {more} more operations without a proof"] if more > 0 else [])
