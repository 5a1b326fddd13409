"""Rules about captions: missing, too long, mixed, shuffled wrongly, and the trigger's place."""

from lorakiln.advise.findings import Case, Said, rule
from lorakiln.advise.pictures import kind_of, spellings, trigger_place

TOKENS = 75
MIXED = 0.1


@rule("K008", "warning", "a trigger word that keep_tokens does not keep", "S7", "T6", safe=True)
def loose_trigger(case: Case) -> Said | None:
    for number, table in enumerate(case.recipe.dataset):
        texts = case.pictures.written(number) if case.pictures else []
        place = trigger_place(texts) if texts else None
        if (
            place
            and (table.shuffle or table.tag_dropout)
            and not table.keep_separator
            and table.keep_tokens <= place[1]
        ):
            text = (
                f"'{place[0]}' is in nearly all captions as tag {place[1] + 1}, but only {table.keep_tokens} are kept"
            )
            return Said(text, {f"dataset.{number}.keep_tokens": place[1] + 1})
    return None


@rule("K009", "warning", "shuffling of sentences, which stay whole", "S5", "S7", safe=True)
def shuffled_prose(case: Case) -> Said | None:
    for number, table in enumerate(case.recipe.dataset):
        if table.shuffle and case.pictures and kind_of(case.pictures.written(number)) == "prose":
            text = f"{table.folder}: its captions are sentences, which stay whole: dataset.shuffle changes nothing"
            return Said(text, {f"dataset.{number}.shuffle": False})
    return None


@rule("K015", "warning", "pictures without a caption", "S5")
def bare(case: Case) -> Said | None:
    if not case.pictures:
        return None
    missing = [one for one in case.pictures.shown if one.caption is None and not one.trigger]
    if not missing:
        return None
    stops = [one for one in missing if case.recipe.dataset[one.table].missing == "error"]
    end = "; training would stop there" if stops else "; they teach the empty prompt"
    return Said(f"{len(missing)} of {case.count} pictures have no caption, the first is {missing[0].path}{end}")


@rule("K016", "note", "captions beyond 75 tokens", "M3")
def long_captions(case: Case) -> Said | None:
    long = [count for count in case.tokens or () if count > TOKENS]
    if long:
        return Said(
            f"{len(long)} captions are longer than {TOKENS} tokens (up to {max(long)}); what follows weighs less"
        )
    return None


@rule("K017", "warning", "captions from several taggers", "S7")
def mixed(case: Case) -> Said | None:
    texts = case.pictures.written() if case.pictures else []
    if not texts:
        return None
    under, spaced = spellings(texts)
    if min(under, spaced) >= MIXED:
        return Said(
            f"tags are written both ways, 'long_hair' in {under:.0%} of captions and 'long hair' in {spaced:.0%}"
        )
    return None
