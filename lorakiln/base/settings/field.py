"""How a setting is written down, so that flags, TOML keys, docs and range errors can all be read from one line."""

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

EFFECTS = {
    "loss": "changes what the loss is, the weights being the same",
    "tensors": "changes the trained weights, and the loss only through them",
    "order": "changes which pictures a step sees",
    "files": "changes which files are written, or their headers",
    "log": "changes what is shown and recorded",
    "memory": "changes memory or speed, never the result",
}


class Section(BaseModel):
    """A table of the recipe. Frozen; an unknown key or a wrong type is an error, never a conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _finite(cls, value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            raise PydanticCustomError("finite_number", "must be a finite number")
        return value


def setting(default: Any, help: str, *, effect: str, low: float | None = None, high: float | None = None) -> Any:
    """One setting: `default` (`...` when it must be given), a sentence for people, its effect, and its range.

    `effect` is a key of EFFECTS; `low` and `high` are allowed values themselves.
    """
    assert effect in EFFECTS, effect
    factory = {"default_factory": default} if callable(default) else {"default": default}
    return Field(**factory, description=help, ge=low, le=high, json_schema_extra={"effect": effect})
