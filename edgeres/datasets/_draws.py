"""Random numbers that are functions of what they are for, not of what was drawn before them."""

from __future__ import annotations

from torch import Tensor

_WORD = 1 << 64
_STEP = 0x9E3779B97F4A7C15


class Draws:
    """Random numbers of some samples of a view, each sample's own; every call is a fresh draw.

    The hash is SplitMix64's (Steele, Lea, Flood 2014, "Fast Splittable Pseudorandom Number
    Generators", figure 17).

    Args:
        samples: int64 (N,), which samples.
    """

    def __init__(self, seed: int, view: int, samples: Tensor):
        self._begin(key(seed, view), samples)

    @classmethod
    def keyed(cls, key: Tensor, samples: Tensor) -> Draws:
        """Those of a seed and view whose `key` is a tensor () on the samples' device."""
        draws = cls.__new__(cls)
        draws._begin(key, samples)
        return draws

    def _begin(self, key: Tensor | int, samples: Tensor) -> None:
        self.samples = samples
        self.state = _scrambled(samples + key)
        self.count = 0

    def below(self, limit: int) -> Tensor:
        """Whole numbers from 0 to limit - 1, int64 (N,)."""
        return self._bits() % limit

    def uniform(self) -> Tensor:
        """Numbers from 0 up to, not including, 1: float32 (N,)."""
        return (self._bits() >> 7).float() / (1 << 24)

    def _bits(self) -> Tensor:
        """31 random bits as int64 (N,)."""
        self.count += 1
        return _shifted(_scrambled(self.state + _signed(self.count * _STEP)), 33)


def key(seed: int, view: int) -> int:
    """What a seed and a view are to the draws: an int64."""
    return _signed(derived(seed, view))


def derived(seed: int, view: int) -> int:
    """A seed for what all samples of a view share."""
    return _hashed(_hashed(seed) + view)


def _hashed(value: int) -> int:
    """SplitMix64's finalizer of a whole number."""
    z = (value + _STEP) % _WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % _WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % _WORD
    return z ^ (z >> 31)


def _scrambled(z: Tensor) -> Tensor:
    """The same of int64 tensors, whose sums and products wrap around, without the first step."""
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """A logical shift to the right (int64's own copies the sign)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    """The int64 with the same 64 bits."""
    word %= _WORD
    return word - _WORD if word >= _WORD // 2 else word
