"""Architectures as values, networks as modules, weights as plain tensors."""
