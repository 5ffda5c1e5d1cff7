"""Several processes that run one recipe together: `--procs N`, or a torchrun that somebody started.

Every process goes through the same steps. The first one plans, writes and reports; in stages that
train, the others train along with it; else they wait for what it has made.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from edgeres import children
from edgeres.errors import BadInput, MissingComponent


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this one writes and reports."""
    return rank() == 0


def agree(flag: bool) -> bool:
    """The first process's flag, in all of them; they wait for one another here."""
    if count() == 1:
        return flag
    import torch
    import torch.distributed as dist

    join()
    told = torch.tensor([int(flag)])
    dist.broadcast(told, src=0)
    return bool(told.item())


def join() -> None:
    """Meet the other processes, once.

    Raises:
        MissingComponent: Accelerate, which spreads the training, isn't installed.
    """
    import importlib.util

    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    if importlib.util.find_spec("accelerate") is None:
        raise MissingComponent(
            "training in several processes needs Hugging Face Accelerate; "
            "install it with: pip install 'edgeres[distributed]'"
        )
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo")


def leave() -> None:
    """Part from the other processes, if they ever met."""
    if count() > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def launch(number: int, arguments: Sequence[str]) -> int:
    """Run `edgeres ARGUMENTS` in several processes of this machine.

    Returns:
        The exit code of the one that failed first, else 0.
    """
    if number < 1:
        raise BadInput(f"--procs {number}: give 1 or more")
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // number)))
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=number, run_id="edgeres", max_restarts=0,
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", monitor_interval=0.2,
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)(*children.command("edgeres", *arguments)[1:])
    except ChildFailedError as error:
        return int(error.get_first_failure()[1].exitcode)
    except (KeyboardInterrupt, SignalException):
        return 130
    return 0
