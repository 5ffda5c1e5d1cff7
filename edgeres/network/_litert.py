"""LiteRT in a process of its own: what a file of anybody's does there, harms nobody here.

Run as a module, it is that process: a TFLite file and images come in on its standard input, each
with its length in 8 bytes before it, and the answers go out, as .npy.
"""

from __future__ import annotations

import io
import struct
import subprocess
import sys

import numpy as np

from edgeres import children

_SECONDS = 120


def answers(model: bytes, images: np.ndarray) -> np.ndarray:
    """What LiteRT answers to images, one at a time, of the file's own type and layout.

    Raises:
        ValueError: it refuses the file, crashes, or takes too long.
    """
    packed = io.BytesIO()
    np.save(packed, images, allow_pickle=False)
    parts = b"".join(struct.pack("<Q", len(p)) + p for p in (model, packed.getvalue()))
    command = children.command("edgeres.network._litert")
    try:
        done = subprocess.run(
            command, input=parts, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"LiteRT took more than {_SECONDS} s") from error
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(f"LiteRT ended with {done.returncode}: {(lines or [''])[-1][:100]}")
    found: np.ndarray = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    return found


def _main() -> None:
    from ai_edge_litert.interpreter import Interpreter

    given, parts = sys.stdin.buffer, []
    for _ in range(2):
        (size,) = struct.unpack("<Q", given.read(8))
        parts.append(given.read(size))
    images = np.load(io.BytesIO(parts[1]), allow_pickle=False)
    runtime = Interpreter(model_content=parts[0], num_threads=1)
    runtime.allocate_tensors()
    image, answer = runtime.get_input_details()[0], runtime.get_output_details()[0]
    found = []
    for one in images:
        runtime.set_tensor(image["index"], one[None])
        runtime.invoke()
        found.append(runtime.get_tensor(answer["index"])[0].copy())
    np.save(sys.stdout.buffer, np.stack(found), allow_pickle=False)


if __name__ == "__main__":
    _main()
