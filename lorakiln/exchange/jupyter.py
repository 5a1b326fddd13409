"""The Ktiseos Jupyter trainer's .toml: sd-scripts' arguments, and many keys that never reached it."""

from collections.abc import Mapping
from typing import Any

from lorakiln.exchange.report import Sheet
from lorakiln.exchange.sd_scripts import config

SECTIONS = {"network_arguments", "optimizer_arguments", "training_arguments"}


def looks_like(table: Mapping[str, Any]) -> bool:
    """Whether the file has this trainer's sections; others have two of them, but call the network's differently."""
    return "network_arguments" in table and len(SECTIONS & table.keys()) > 1


def settings_file(table: Mapping[str, Any]) -> tuple[Sheet, list[str]]:
    """The trainer hands the file to sd-scripts as it is, so what sd-scripts passes over never had an effect."""
    return config(table)
