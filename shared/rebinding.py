"""The same function with other globals: how a name in the middle of a library's long method is bent for us alone.

Owns: the copying. Does not own: what is bent and why (the adapters that use it).
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable


def rebound(function: Callable[..., object], **names: object) -> Callable[..., Any]:
    """The same function, seeing `names` in place of its module's. ImportError when it does not use one of them."""
    original = cast("FunctionType", function)
    if unused := names.keys() - set(original.__code__.co_names):
        raise ImportError(f"aiokafka's {original.__qualname__} no longer uses {', '.join(sorted(unused))}")
    copy = FunctionType(
        original.__code__,
        {**original.__globals__, **names},
        original.__name__,
        original.__defaults__,
        original.__closure__,
    )
    copy.__kwdefaults__ = original.__kwdefaults__
    return copy
