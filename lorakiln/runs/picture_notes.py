"""What a run says of its pictures before it trains: buckets with what they crop, and masks with what they leave."""

from collections.abc import Iterator

from lorakiln.data.dataset import Dataset
from lorakiln.data.masks import Masks


def picture_notes(dataset: Dataset, masks: Masks) -> Iterator[str]:
    """One line on the aspect buckets, and one on the masks where there are any."""
    rows = dataset.bucket_rows()
    lost = sum(row.count * row.mean_lost for row in rows) / len(dataset.examples)
    shapes = ", ".join(f"{row.bucket.width}x{row.bucket.height} ({row.count})" for row in rows[:8])
    rest = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    worst = max(row.most_lost for row in rows)
    yield f"buckets: {shapes}{rest}; {lost:.1%} of a picture is cropped on average, {worst:.1%} at most"
    masked = [example for example in dataset.examples if example.mask]
    if masked:
        counted = sum(masks.read(example, example.crop).mean().item() for example in masked) / len(masked)
        of = f"{len(masked)} of {len(dataset.examples)} pictures"
        yield f"masks: {of} have one; {counted:.1%} of their pixels count"
