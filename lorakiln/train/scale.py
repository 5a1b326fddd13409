"""Loss scaling for fp16, whose gradients would otherwise vanish (Micikevicius et al. 2018)."""

from dataclasses import dataclass


@dataclass
class LossScale:
    """The factor on the loss: halved after an overflow, doubled after `patience` clean steps, never below 1."""

    factor: float = 2.0**16
    patience: int = 1000
    clean: int = 0

    def update(self, finite: bool) -> None:
        """Learn from a step; one that overflowed (not `finite`) was not taken."""
        if not finite:
            self.factor, self.clean = max(1.0, self.factor / 2), 0
            return
        self.clean += 1
        if self.clean == self.patience:
            self.factor, self.clean = self.factor * 2, 0
