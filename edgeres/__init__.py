"""edgeres: from a big network to a small, verified int8 model, measured on the device."""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["benchmark", "distill", "export", "inspect", "load", "prune", "quantize", "run",
           "verify"]  # fmt: skip


def __getattr__(name: str) -> object:
    """The functions of `edgeres.api`, loaded when one is asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'edgeres' has no attribute '{name}'")
    return getattr(import_module("edgeres.api"), name)
