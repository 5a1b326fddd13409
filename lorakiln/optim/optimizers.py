"""What every optimizer offers, the table of those there are, and how one is built from a recipe's words."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from lorakiln.base.errors import UserError
from lorakiln.base.registry import Registry
from lorakiln.optim.flat import FlatParameters


class Optimizer(Protocol):
    """Moves the values of a FlatParameters by its gradients. Rates are set before each step, never inside."""

    def set_lr(self, rates: Mapping[str, float]) -> None:
        """The learning rate of each group, by name; every group needs one."""
        ...

    def step(self) -> None:
        """One update from the gradients as they are; clears nothing."""
        ...

    def logged_lr(self) -> dict[str, float | Tensor]:
        """The rate that moved each group in the last step. Prodigy's is d * lr, a tensor on the device with no
        dimension: `float()` it when the number is wanted, since that waits for the device."""
        ...

    def state_tensors(self) -> dict[str, Tensor]:
        """The tensors that the next step needs, by name; the live ones, so copy or save them before stepping on."""
        ...

    def state_scalars(self) -> dict[str, float | int]:
        """The numbers that the next step needs, exact in JSON."""
        ...

    def load_state(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, float | int]) -> None:
        """Continue, to the bit, from what the other two gave. UserError when it belongs to another network."""
        ...


Builder = Callable[..., Optimizer]


class Optimizers:
    """`optimizers["adamw"](flat, betas=(0.9, 0.99))`: the weights, and by keyword what that optimizer has.

    A name with a dot is any class of torch's kind ("torch.optim.NAdam"). UserError for an unknown name, an option that
    the optimizer does not have, and a value that it cannot use. The learning rate is no option: see `set_lr`.
    """

    def __init__(self) -> None:
        self._builders: Registry[Builder] = Registry("optimizer")

    def register(self, name: str) -> Callable[[Builder], Builder]:
        return self._builders.register(name)

    def __getitem__(self, name: str) -> Builder:
        import lorakiln.optim.table  # noqa: F401  fills the registry
        from lorakiln.optim.foreign import by_path

        if "." in name:
            return functools.partial(by_path, name)
        builder = self._builders[name]

        def checked(flat: FlatParameters, **options: Any) -> Optimizer:
            check_options(f"optimizer '{name}'", builder, options)
            return builder(flat, **options)

        return checked

    def __iter__(self) -> Iterator[str]:
        import lorakiln.optim.table  # noqa: F401  fills the registry

        return iter(self._builders)

    def options(self, name: str) -> list[str]:
        """The options of an optimizer that has a name here."""
        self[name]
        return options_of(self._builders[name])


optimizers = Optimizers()


def options_of(builder: Callable) -> list[str]:
    """The keyword-only arguments of a builder, in its own order."""
    parameters = inspect.signature(builder).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def check_names(who: str, known: Sequence[str], given: Iterable[str]) -> None:
    """UserError that lists the options there are, if `given` has another."""
    for option in given:
        if option not in known:
            raise UserError(f"{who} has no option '{option}'; it has {', '.join(known) or 'none'}")


def check_options(who: str, builder: Callable, given: Mapping[str, Any]) -> None:
    """UserError if `builder` has no such keyword, or a value is not of its default's kind ("false" for false)."""
    check_names(who, options_of(builder), given)
    parameters = inspect.signature(builder).parameters
    for option, value in given.items():
        default = parameters[option].default
        if isinstance(default, bool):
            fits, wanted = isinstance(value, bool), "true or false"
        elif isinstance(default, (list, tuple)):
            fits, wanted = isinstance(value, (list, tuple)) and all(map(_is_number, value)), "a list of numbers"
        else:
            fits, wanted = _is_number(value) or value is default, "a number"
        if not fits:
            raise UserError(f"{who}: {option} = {value!r}: must be {wanted}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_share(name: str, value: float, *, one: bool = False) -> float:
    """`value` if it lies in 0 <= value < 1 (<= 1 with `one`), else UserError."""
    if not (0 <= value < 1 or (one and value == 1)):
        raise UserError(f"{name} = {value}: must be at least 0 and {'at most' if one else 'below'} 1")
    return value


def check_positive(name: str, value: float, *, zero: bool = False) -> float:
    """`value` if it is above 0 (or 0, with `zero`), else UserError."""
    if not (value > 0 or (zero and value == 0)):
        raise UserError(f"{name} = {value}: must be {'at least' if zero else 'above'} 0")
    return value


def check_betas(betas: Any, count: int) -> tuple[float, ...]:
    """`betas` as a tuple of `count` numbers in 0 <= beta < 1, else UserError."""
    betas = tuple(betas) if isinstance(betas, (list, tuple)) and all(map(_is_number, betas)) else ()
    if len(betas) != count:
        raise UserError(f"betas: must be {count} numbers")
    return tuple(check_share("betas", float(beta)) for beta in betas)
