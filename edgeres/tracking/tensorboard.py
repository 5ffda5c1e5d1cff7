"""TensorBoard: a run's metrics in, an event file out (extra `tensorboard`).

Events are written as TensorBoard's own records, without its file layer, which would import
TensorFlow wherever that is installed.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.disk import storage_errors
from edgeres.errors import MissingComponent
from edgeres.tracking import Tracked

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

    from edgeres.text.runs import InFolder


def track(run: Tracked, folder: Path) -> InFolder:
    """Write the scalars and the settings; what an earlier call wrote there is replaced.

    Returns:
        {"tracker", "folder", "scalars"}.

    Raises:
        MissingComponent: tensorboard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingComponent("TensorBoard is missing: pip install 'edgeres[tensorboard]'")
    from tensorboard.summary.writer.record_writer import RecordWriter

    now = time.time()
    with storage_errors(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with (folder / f"events.out.tfevents.{int(now)}.edgeres").open("wb") as file:
            writer = RecordWriter(file)
            for event in _events(run, now):
                writer.write(event.SerializeToString())
            writer.flush()
    return {"tracker": "tensorboard", "folder": str(folder), "scalars": len(run.points)}


def _events(run: Tracked, now: float) -> Iterator[Event]:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    yield Event(wall_time=now, file_version="brain.Event:2")
    for point in run.points:
        value = Summary.Value(tag=point.metric, simple_value=point.value)
        yield Event(wall_time=now, step=point.step, summary=Summary(value=[value]))
    shown = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    for tag, values in (("recipe", run.params), ("lineage", run.lineage)):
        text = TensorProto(dtype=DT_STRING, string_val=[_indented(values)])
        value = Summary.Value(tag=tag, metadata=shown, tensor=text)
        yield Event(wall_time=now, summary=Summary(value=[value]))


def _indented(values: Mapping[str, str]) -> bytes:
    """JSON as a Markdown code block."""
    lines = json.dumps(dict(values), indent=1).splitlines()
    return "\n".join(f"    {line}" for line in lines).encode()
