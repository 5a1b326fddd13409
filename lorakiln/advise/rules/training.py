"""Rules about how the weights move: optimizer, rates, rank, length, loss, saving."""

from lorakiln.advise.advice import FEW, FEW_RANK
from lorakiln.advise.findings import Case, Said, rule
from lorakiln.advise.length import FEWEST_STEPS as SHORTEST
from lorakiln.advise.length import MOST_STEPS as LONGEST
from lorakiln.advise.pictures import HELD_SHARE, HOLDABLE

RATE = 5e-4
STYLE_RATE = 1e-4
MANY = 200
HOT, COLD = 1e-3, 1e-6
CHOICE = 3


@rule("K001", "error", "CAME at a learning rate of 5e-4 or more", "T11", safe=True)
def came_too_hot(case: Case) -> Said | None:
    optim = case.recipe.optim
    if optim.name == "came" and optim.lr >= RATE and not case.tiny:
        return Said(f"optim.lr = {optim.lr:g} with CAME: abstract void", {"optim.lr": STYLE_RATE})
    return None


@rule("K002", "warning", "CAME on more than 200 pictures", "T10")
def came_on_many(case: Case) -> Said | None:
    if case.recipe.optim.name == "came" and case.count > MANY and case.purpose != "character":
        text = f"CAME on {case.count} pictures: too cautious above {MANY}, the style is not learned"
        return Said(text, {"optim.name": "adamw", "optim.lr": RATE})
    return None


@rule("K003", "warning", "a character's learning rate on a style", "T8", "T12")
def timid_style(case: Case) -> Said | None:
    optim = case.recipe.optim
    if case.purpose == "style" and optim.name in ("came", "adamw", "adamw8bit") and 0 < optim.lr < STYLE_RATE:
        return Said(f"optim.lr = {optim.lr:g} is a character's; a style wants more", {"optim.lr": STYLE_RATE})
    return None


@rule("K004", "warning", "too few pictures for the rank", "S1", "T1", "T7")
def rank_too_high(case: Case) -> Said | None:
    adapter = case.recipe.adapter
    if case.pictures and adapter.kind != "lokr" and case.count < FEW and adapter.rank > FEW_RANK:
        text = f"rank {adapter.rank} for {case.count} pictures invites overfitting; {FEW_RANK} is the most below {FEW}"
        return Said(text, {"adapter.rank": FEW_RANK})
    return None


@rule("K005", "warning", "a length far from any that was seen to work", "T4", "T7")
def odd_length(case: Case) -> Said | None:
    if not case.time or case.tiny or SHORTEST <= case.steps <= LONGEST:
        return None
    short = case.steps < SHORTEST
    bound = f"fewer than {SHORTEST}, the shortest run seen to work" if short else f"more than {LONGEST:,}, the longest"
    epochs = case.recipe.train.epochs
    wanted = max(1, round(epochs * (SHORTEST if short else LONGEST) / case.steps))
    return Said(f"{case.steps:,} steps are {bound}", {"train.epochs": wanted})


@rule("K006", "warning", "text encoders that learn faster than the UNet", "T5")
def fast_text(case: Case) -> Said | None:
    optim = case.recipe.optim
    fastest = max(optim.text_lr, optim.second_text_lr)
    if optim.name != "prodigy" and optim.lr and fastest > optim.lr:
        text = f"optim.text_lr = {fastest:g} is above optim.lr = {optim.lr:g}: prompts are spoiled first"
        return Said(text, {"optim.text_lr": optim.lr / 5})
    return None


@rule("K007", "warning", "learning rate and alpha / rank that do not fit together", "M1", "T5")
def odd_scale(case: Case) -> Said | None:
    optim, adapter = case.recipe.optim, case.recipe.adapter
    if case.tiny or optim.name not in ("adamw", "adamw8bit", "adafactor", "came") or adapter.full_matrix:
        return None
    scale = adapter.alpha / (adapter.rank**0.5 if adapter.rank_stabilised else adapter.rank)
    effective = optim.lr * scale
    if 0 < effective < COLD or effective > HOT:
        what = "next to nothing is learned" if effective < COLD else "it burns"
        return Said(f"optim.lr x alpha / rank = {effective:.1e}: {what} (usual are 3e-5 to 5e-4)")
    return None


@rule("K010", "warning", "min-SNR on a base with zero terminal SNR", "M2")
def weightless_last_step(case: Case) -> Said | None:
    zero = case.recipe.ztsnr == "on" or (case.recipe.ztsnr == "auto" and case.base.zero_snr)
    if zero and case.recipe.loss.min_snr_gamma:
        return Said("min-SNR gives the last, purest-noise step no weight on this base", {"loss.min_snr_gamma": 0.0})
    return None


@rule("K020", "warning", "so few checkpoints that no choice remains", "W1", "T1", "P1")
def no_choice(case: Case) -> Said | None:
    save, train = case.recipe.save, case.recipe.train
    if not case.time:
        return None
    per_epoch = max(1, -(-case.steps // train.epochs))
    made = (train.epochs // save.epochs if save.epochs else 0) + (case.steps // save.steps if save.steps else 0)
    kept = min(made, save.keep) if save.keep else made
    if kept < CHOICE:
        every = max(1, train.epochs // 5)
        fix = {"save.epochs": every} if train.epochs >= CHOICE else {"save.steps": max(1, per_epoch // 5)}
        return Said(f"{kept} checkpoints: you cannot go back to before it was overbaked", fix)
    return None


@rule("K021", "note", "no held-out pictures, of 30 or more", "W1", "W2", "S1")
def no_held_out(case: Case) -> Said | None:
    # a character has 20-40 pictures: of fewer than 30 a tenth is too few to tell anything, and is missed in training
    tables = case.recipe.dataset
    if case.count < HOLDABLE or any(table.heldout for table in tables):
        return None
    text = "no held-out pictures: 'kiln judge' cannot tell learning from memorising"
    return Said(text, {"dataset.0.heldout": HELD_SHARE})


@rule("K029", "warning", "an Adafactor that throws the learning rate away", "T3")
def lost_rate(case: Case) -> Said | None:
    optim = case.recipe.optim
    if optim.name == "adafactor" and optim.options.get("relative_step") and optim.lr not in (0.0, 1.0):
        text = f"with relative_step optim.lr = {optim.lr:g} is only a factor on Adafactor's own rate"
        return Said(text, {"optim.options.relative_step": False})
    return None


@rule("K030", "note", "no sample prompts", "W2")
def blind(case: Case) -> Said | None:
    sample = case.recipe.sample
    if not sample.prompts and not sample.file:
        return Said("no sample prompts: you will see nothing before the end")
    return None


@rule("K031", "warning", "Prodigy with a learning rate other than 1", "M5", "T1")
def bridled_prodigy(case: Case) -> Said | None:
    optim = case.recipe.optim
    if optim.name == "prodigy" and optim.lr not in (0.0, 1.0):
        text = f"optim.lr = {optim.lr:g}: Prodigy finds its own step size and wants 1; turn d_coef instead"
        return Said(text, {"optim.lr": 1.0})
    return None


@rule("K028", "note", "samples without a negative prompt on a base with strong habits", "B6", safe=True)
def habits(case: Case) -> Said | None:
    sample, profile = case.recipe.sample, case.base.profile
    drawn = sample.prompts or sample.file
    if drawn and profile and profile.negative and not sample.negative and not any("--n " in p for p in sample.prompts):
        text = f"{profile.title} has strong habits: without a negative prompt you judge them too"
        return Said(text, {"sample.negative": profile.negative})
    return None
