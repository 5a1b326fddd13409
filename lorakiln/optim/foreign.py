"""Optimizers of torch's kind behind Kiln's interface: torch's own AdamW, and any other class by its dotted path."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lorakiln.base.errors import UserError
from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import check_names

Groups = list[dict[str, Any]]
GROUP, OWN = "group", "self"  # "group0.d" is an entry of a group, "0.exp_avg" the state of a tensor


class Foreign:
    """A torch optimizer that was built on a FlatParameters.

    `flat_buffers` gives it each group as one long tensor, right for optimizers that treat every number alike; without,
    it gets the parameters one by one, with their shapes. What the optimizer keeps of a run in its groups
    (prodigyopt its step size, pytorch-optimizer its count of steps) or in numbers of its own is saved as its state is.
    """

    def __init__(self, flat: FlatParameters, make: Callable[[Groups], torch.optim.Optimizer], *, flat_buffers: bool):
        self._names = [group.name for group in flat.groups]
        self._elements = sum(group.values.numel() for group in flat.groups)
        groups = []
        for group in flat.groups:
            tensors: Sequence[Tensor] = group.parameters
            if flat_buffers:
                whole = torch.nn.Parameter(group.values)
                whole.grad = group.gradients
                tensors = [whole]
            groups.append({"params": list(tensors), "lr": 0.0})
        self._inner = make(groups)
        self._first = [dict(table) for table in self._tables().values()]

    def set_lr(self, rates: Mapping[str, float]) -> None:
        for name, group in zip(self._names, self._inner.param_groups, strict=True):
            group["lr"] = rates[name]

    def step(self) -> None:
        self._inner.step()

    def logged_lr(self) -> dict[str, float | Tensor]:
        return {name: float(group["lr"]) for name, group in zip(self._names, self._inner.param_groups, strict=True)}

    def _state(self) -> dict[str, Any]:
        # not state_dict(), where bitsandbytes wraps its tensors in a second dictionary
        tensors = [tensor for group in self._inner.param_groups for tensor in group["params"]]
        states = [(index, self._inner.state.get(tensor, {})) for index, tensor in enumerate(tensors)]
        found = {f"{index}.{key}": value for index, state in states for key, value in state.items()}
        for (name, table), first in zip(self._tables().items(), self._first, strict=True):
            found |= {f"{name}.{key}": table[key] for key in table if _moved(table[key], first.get(key))}
        return found

    def _tables(self) -> dict[str, dict[str, Any]]:
        """What may change beside the state: "group0", ... -> a group's entries, "self" -> the optimizer's numbers."""
        groups = [dict(group, params=None, lr=None) for group in self._inner.param_groups]
        own = {key: value for key, value in vars(self._inner).items() if isinstance(value, (int, float, Tensor))}
        return {f"{GROUP}{index}": group for index, group in enumerate(groups)} | {OWN: own}

    def state_tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in self._state().items() if isinstance(value, Tensor)}

    def state_scalars(self) -> dict[str, float | int]:
        rest = {name: value for name, value in self._state().items() if not isinstance(value, Tensor)}
        for name, value in rest.items():
            if not isinstance(value, (int, float)):
                who = type(self._inner).__name__
                raise UserError(f"optimizer {who} keeps {name} as a {type(value).__name__}, which cannot be saved")
        return rest | {"elements": self._elements}

    def load_state(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, float | int]) -> None:
        if scalars.get("elements") != self._elements:
            raise UserError("the saved optimizer state belongs to another network; start a new run")
        state: dict[int, dict[str, Any]] = {}
        own: dict[str, Any] = {}
        groups = self._inner.state_dict()["param_groups"]
        for name, value in (*tensors.items(), *scalars.items()):
            where, _, key = name.partition(".")
            if not key:
                continue
            held = value.clone() if isinstance(value, Tensor) else value
            if where == OWN:
                own[key] = held
            elif where.startswith(GROUP):
                groups[int(where.removeprefix(GROUP))][key] = held
            else:
                state.setdefault(int(where), {})[key] = held
        self._inner.load_state_dict({"state": state, "param_groups": groups})
        vars(self._inner).update(own)  # last: some set theirs back while they load


def _moved(value: Any, first: Any) -> bool:
    """Whether an entry is no longer what it was when the optimizer was made; a tensor may have changed in place."""
    return isinstance(value, Tensor) or value != first


def by_path(path: str, flat: FlatParameters, **options: Any) -> Foreign:
    """Any optimizer class of torch's kind, such as "torch.optim.NAdam", on the parameters with their own shapes.

    UserError when there is no such class, it needs a closure (LBFGS), or it has no such option.
    """
    kind = _optimizer_class(path)
    named = [
        parameter.name
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    check_names(f"optimizer '{path}'", [name for name in named if name not in ("params", "lr")], options)
    try:
        return Foreign(flat, lambda groups: kind(groups, **options), flat_buffers=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer '{path}': {error}") from error


def _optimizer_class(path: str) -> type[torch.optim.Optimizer]:
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"optimizer '{path}': there is no such class installed ({error})") from error
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise UserError(f"optimizer '{path}': is not a torch optimizer")
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure and closure.default is closure.empty:
        raise UserError(f"optimizer '{path}': needs a closure that computes the loss again, which Kiln does not offer")
    return kind
