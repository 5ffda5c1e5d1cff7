"""Networks as data: a graph of named operations and plain tensors, and ways to get them.

`graph` is the value, `ops` what a graph may hold, `module` the PyTorch module of one, `document`
its JSON, `fold` the same without batch norm. `from_torch` reads programs of `torch.export`,
`from_onnx` ONNX files.
"""
