"""Rules about pictures: copies, crops, enlargement, buckets."""

from collections import Counter

from lorakiln.advise.findings import Case, Said, rule

CUT = 0.05
STRETCHED = 1.5


@rule("K012", "warning", "buckets that cut more than 5 % off", "S8", safe=True)
def cropped(case: Case) -> Said | None:
    shown = case.pictures.shown if case.pictures else ()
    cut = [one for one in shown if one.crop.lost > CUT and not case.recipe.dataset[one.table].random_crop]
    if not cut:
        return None
    worst = max(cut, key=lambda one: one.crop.lost)
    table = case.recipe.dataset[worst.table]
    text = f"{len(cut)} of {len(shown)} pictures lose more than {CUT:.0%}, {worst.path} {worst.crop.lost:.0%}"
    finest = 16 if case.tiny else 64
    if not table.bucket:
        return Said(text, {f"dataset.{worst.table}.bucket": True})
    return Said(text, {f"dataset.{worst.table}.bucket_step": finest} if table.bucket_step > finest else {})


@rule("K013", "warning", "pictures stretched beyond 1.5 times their size", "S2")
def stretched(case: Case) -> Said | None:
    shown = case.pictures.shown if case.pictures else ()
    blurred = [one for one in shown if one.enlarged > STRETCHED]
    if not blurred:
        return None
    worst = max(blurred, key=lambda one: one.enlarged)
    text = f"{len(blurred)} pictures are stretched more than {STRETCHED:g} times, {worst.path} {worst.enlarged:.1f}: "
    return Said(text + "the LoRA learns to blur", {f"dataset.{worst.table}.no_upscale": True})


@rule("K014", "warning", "copies left in", "S3")
def copies(case: Case) -> Said | None:
    if not case.pictures:
        return None
    times = Counter(one.sha256 for one in case.pictures.shown if one.sha256)
    same = sum(count - 1 for count in times.values())
    if same:
        return Said(f"{same} pictures are exact copies of others: they are learned twice as hard")
    if case.pictures.near:
        return Said(
            f"{case.pictures.near} pictures are copies of others by 'kiln curate': they are learned twice as hard"
        )
    return None


@rule("K034", "note", "pictures that nobody has scanned", "S3")
def unscanned(case: Case) -> Said | None:
    if not case.pictures or not case.pictures.unscanned:
        return None
    folders = " and ".join(f"'kiln curate {table.folder}'" for table in case.recipe.dataset)
    return Said(
        f"{case.pictures.unscanned} of {case.count} pictures not scanned, so copies that are not the same file are not "
        f"known: run {folders}"
    )


@rule("K018", "note", "a base without a profile", "B1", "B2", "B3", "B4")
def unknown_base(case: Case) -> Said | None:
    if case.base.profile is None and not case.base.problem:
        return Said(f"{case.base.base}: not a base Kiln knows, so no word on its quality tags, sampler or "
                    "prediction; 'kiln advise ... --like NAME' tells it once")  # fmt: skip
    return None


@rule("K011", "error", "a prediction that the base contradicts", "B3", safe=True)
def wrong_prediction(case: Case) -> Said | None:
    wanted, base = case.recipe.prediction, case.base
    if wanted == "auto" or not base.prediction or wanted == base.prediction:
        return None
    source = f"{base.base} says it predicts" if base.predicts else f"{base.base} is known as one that predicts"
    return Said(f"prediction = '{wanted}', but {source} {base.prediction}: noise would come out",
                {"prediction": "auto"})  # fmt: skip


@rule("K019", "warning", "a batch larger than the smallest bucket", "M4")
def lonely(case: Case) -> Said | None:
    batch = case.recipe.train.batch
    buckets = case.pictures.buckets() if case.pictures else {}
    small = {size: visits for size, visits in buckets.items() if visits < batch}
    if batch == 1 or not small:
        return None
    size = min(small, key=lambda one: small[one])
    few = f"{len(small)} of {len(buckets)} buckets have fewer pictures than the batch of {batch}"
    text = f"{few}; {size} has {small[size]}"
    return Said(f"{text}: its steps are noisier", {"train.batch": max(1, min(small.values()))})


@rule("K032", "error", "pictures that cannot be read", "S3")
def unreadable(case: Case) -> Said | None:
    bad = case.pictures.unreadable if case.pictures else ()
    if bad:
        return Said(f"{len(bad)} pictures cannot be used; the first: {bad[0]}")
    return None
