"""Results as a person reads them: JSON-ready dictionaries in, text out.

Each file of `edgeres.cli` has its namesake here; this one holds what they share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgeres.statistics import wilson

if TYPE_CHECKING:
    from edgeres.records import Counted, Tensor


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """Columns aligned by their widest cell; the last one may run on."""
    cells = [[_cell(row.get(c)) for c in columns] for row in rows]
    widths = [max(len(c), *(len(r[i]) for r in cells)) if cells else len(c)
              for i, c in enumerate(columns)]  # fmt: skip
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
             for row in [list(columns), *cells]]  # fmt: skip
    return "\n".join(lines)


def tensor(spec: Tensor) -> str:
    """`int8 1x16x16x3 NHWC, scale 0.0156863, zero point 0`."""
    shape = "x".join(str(n) if n > 0 else "?" for n in spec["shape"])
    q = spec.get("quantization")
    extra = f", scale {q['scale'][0]:.6g}, zero point {q['zero_point'][0]}" if q else ""
    return f"{spec['dtype']} {shape} {spec['layout']}{extra}"


def accuracy(found: Counted | None) -> str:
    """`97.3 % (95.7-98.4)`: top-1 with its 95 % Wilson interval."""
    if not found:
        return "-"
    low, high = wilson(found["correct"], found["n"])
    return f"{found['correct'] / found['n']:.2%} ({low:.1%}-{high:.1%})"


def kilobytes(size: int) -> str:
    """Bytes as kB (1000 bytes)."""
    return f"{size / 1e3:,.1f} kB"


def milliseconds(nanoseconds: float | None) -> str:
    """Nanoseconds as ms."""
    return "-" if nanoseconds is None else f"{nanoseconds / 1e6:.3f} ms"


def start(words: str, limit: int) -> str:
    """Cut to a length."""
    return words if len(words) <= limit else f"{words[: limit - 1]}…"


def _cell(value: object) -> str:
    return "-" if value is None else str(value)
