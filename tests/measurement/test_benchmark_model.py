"""x"""
import time
import numpy as np
from pathlib import Path
from beds import benchmark_model as standin
from beds.phone import Phone
from linear_model import INPUTS, expected, write_tflite
from edgeres.measurement import protocol, runners
from edgeres.measurement.runners import Preset, Work, benchmark_model
from edgeres.types import TensorSpec
import pytest

@pytest.mark.parametrize("kind", ["classic","litert"])
def test_first(phone: Phone, tmp_path, kind) -> None:
    t=time.time()
    tool = standin.write(tmp_path/"benchmark_model", kind)
    d = phone.open(tools={"benchmark_model": str(tool)})
    work = Work(write_tflite(tmp_path/"m.tflite"), INPUTS, TensorSpec("x",(1,4),"float32","NC"), TensorSpec("y",(1,3),"float32","NC"), 1, tmp_path)
    loaded = benchmark_model.load(d, work)
    print("load", loaded.kind, time.time()-t); t=time.time()
    print(loaded.session(Preset(64,0.01,1.0))); print(time.time()-t); t=time.time()
    print(loaded.memory()); print(time.time()-t); t=time.time()
    out=loaded.outputs(INPUTS)
    if out is not None: print(np.abs(out-expected(INPUTS)).max()); print(time.time()-t); t=time.time()
