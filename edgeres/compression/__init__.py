"""Pruning, the quantizer, QAT, PTQ, and the one quantized graph."""

from edgeres.quiet import quiet

# torchao announces at import which of its GPU kernels don't load here.
with quiet("importing torchao"):
    import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401
