"""Plug-ins are a name and a function: a table that refuses doubles and lists the choices on a miss."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from lorakiln.base.errors import UserError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """`@optimizers.register("adamw")` above a builder; `optimizers["adamw"]` gives it back."""

    def __init__(self, noun: str):
        self.noun = noun
        self._parts: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        def add(part: T) -> T:
            assert name not in self._parts, f"{self.noun} '{name}' is registered twice"
            self._parts[name] = part
            return part

        return add

    def __getitem__(self, name: str) -> T:
        if name not in self._parts:
            raise UserError(f"unknown {self.noun} '{name}'{nearest(name, self._parts)}")
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)
