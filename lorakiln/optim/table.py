"""Imports every optimizer once, so that each is in the registry."""

import lorakiln.optim.adafactor
import lorakiln.optim.adamw
import lorakiln.optim.adamw8bit
import lorakiln.optim.came
import lorakiln.optim.lion
import lorakiln.optim.prodigy  # noqa: F401
