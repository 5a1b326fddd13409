"""The loss curve as a picture."""

from pathlib import Path

from lorakiln.base.files import atomic
from lorakiln.train.events import read_events


def draw_loss_curve(events: Path, picture: Path) -> None:
    """Draw loss and learning rate over the steps of `events` into a PNG: each step's loss, and its running mean."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    steps = [event for event in read_events(events) if event["event"] == "step"]
    numbers, losses = [event["step"] for event in steps], [event["loss"] for event in steps]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(numbers, losses, ".", color="0.8", markersize=3, label="a step")
    axes.plot(numbers, _running_mean(losses, max(5, len(losses) // 20)), color="C0", label="running mean")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    rates = axes.twinx()
    for n, name in enumerate(steps[0]["lr"] if steps else ()):
        rates.plot(
            numbers, [event["lr"][name] for event in steps], "--", color=f"C{n + 1}", label=f"learning rate {name}"
        )
    rates.set_ylabel("learning rate")
    rates.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    with atomic(picture) as stream:
        figure.savefig(stream, format="png", dpi=120)


def _running_mean(values: list[float], width: int) -> list[float]:
    """Centred mean over `width` values, fewer at the ends."""
    half = width // 2
    windows = (values[max(0, n - half) : n + half + 1] for n in range(len(values)))
    return [sum(window) / len(window) for window in windows]
