"""Rules about this machine and this folder: memory, disk, formats, packages, the clock, what would be overwritten."""

from lorakiln.advise.findings import Case, Said, rule


@rule("K033", "error", "a base that is not there or cannot be trained", "B2", "B4")
def no_base(case: Case) -> Said | None:
    return Said(case.base.problem) if case.base.problem else None


@rule("K022", "error", "more memory than the card has", "T13", "C1")
def too_large(case: Case) -> Said | None:
    memory, vram = case.memory, case.machine.vram
    if not memory or not vram or memory.total <= vram:
        return None
    train = case.recipe.train
    fix: dict = {"train.checkpointing": True} if not train.checkpointing else {}
    if not fix and train.batch > 1:
        fix = {"train.batch": train.batch - 1}
    return Said(f"about {memory.total:.1f} GiB are needed, the card has {vram:.1f}", fix)


@rule("K023", "error", "too little disk for what will be written", "W6", "P1")
def full_disk(case: Case) -> Said | None:
    free = case.machine.disk_free
    if free is not None and case.needs_disk > free:
        return Said(f"checkpoints, state and cache take about {case.needs_disk:.1f} GiB, {free:.1f} are free",
                    {"save.keep": 3})  # fmt: skip
    return None


@rule("K024", "warning", "an output that exists", "W5")
def exists(case: Case) -> Said | None:
    if case.output_exists:
        return Said(f"{case.output_exists} exists: choose another name, or --resume or --overwrite")
    return None


@rule("K025", "error", "a number format that this card does not have", "P2", "W8", safe=True)
def unsupported(case: Case) -> Said | None:
    if case.recipe.train.precision == "bf16" and case.machine.cuda and not case.machine.bf16:
        return Said("this card has no bf16", {"train.precision": "fp16"})
    return None


@rule("K026", "error", "a package that is not installed", "W8", "P2")
def missing(case: Case) -> Said | None:
    if case.machine.missing:
        names = ", ".join(case.machine.missing)
        return Said(
            f"{names}: not installed, and optim.name = '{case.recipe.optim.name}' needs it: pip install {names}"
        )
    return None


@rule("K027", "warning", "a run that outlasts the rental", "W6", "P1")
def clock(case: Case) -> Said | None:
    hours = case.machine.hours
    if not hours or not case.time:
        return None
    longest = case.time.whole[1] / 3600
    if longest > hours:
        return Said(
            f"it may take {longest:.1f} hours, the rental ends in {hours:g}; what is saved by then can be resumed"
        )
    return None
