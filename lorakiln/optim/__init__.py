"""How the weights step: optimizers on flat buffers, and the schedules of their learning rates."""
