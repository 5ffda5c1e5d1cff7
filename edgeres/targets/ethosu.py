"""Arm Ethos-U: what Vela makes of the TFLite file (`_compiled`)."""

from __future__ import annotations

from edgeres import runtimes
from edgeres.targets import _schemes, tflite
from edgeres.targets._compiled import Form

SUMMARY = "Arm Ethos-U NPUs, compiled by Vela"
PRECISIONS = ("int8",)
SUFFIX = ".ethosu"
PACKAGE, EXTRA = tflite.PACKAGE, tflite.EXTRA
RUNTIME = f"{tflite.RUNTIME}, what was compiled"
SCHEMES = {"int8": _schemes.as_trained}
COMPILED = Form("tflite-int8", tuple(runtimes.module("ethos_u").NAMES))
export, read, structure = COMPILED.export, COMPILED.read, COMPILED.structure
session, tracer, missing = COMPILED.session, COMPILED.tracer, COMPILED.missing
