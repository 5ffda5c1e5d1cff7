"""edgeres: from a big ResNet to a small, verified int8 model, measured on the device."""

__version__ = "0.1.0"
