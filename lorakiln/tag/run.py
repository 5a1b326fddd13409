"""One run over a folder's captions: tags, then sentences, then rules, handed over as they come."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lorakiln.tag import batches, folder
from lorakiln.tag.caption import Caption
from lorakiln.tag.folder import Existing, Keep, Set
from lorakiln.tag.rules import Count, Rules
from lorakiln.tag.tagger import Captioner, Tagger, Thresholds


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done to every caption, with all models loaded; None for what is not.

    `existing` says what becomes of tags in caption files, `share` how many of all pictures hold a sentence in the end.
    """

    tagger: Tagger | None = None
    limits: Thresholds = field(default_factory=Thresholds)
    existing: Existing = "keep"
    captioner: Captioner | None = None
    share: float = 0.5
    rules: Rules | None = None
    count: Count | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Every picture's caption; pictures that could not be read, and why; of the tags that fell past `max_tokens`, in
    how many captions each did, and how many captions lost any."""

    captions: Mapping[str, Caption]
    failed: list[str] = field(default_factory=list)
    fallen: Counter[str] = field(default_factory=Counter)
    cut: int = 0

    @property
    def told(self) -> int:
        """How many captions hold a sentence."""
        return sum(bool(caption.sentence) for caption in self.captions.values())


def run(whole: Set, plan: Plan, keep: Keep, report: Callable[[str], batches.Report]) -> Outcome:
    """Do it. `keep` takes the tags and sentences batch by batch; what the rules make of them is only known at the end,
    since they count tags over the whole set. `report` gives each stage its callback."""
    captions, failed = whole.captions, []
    if plan.tagger:
        new, failed = folder.tagged(whole, plan.tagger, plan.limits, plan.existing, report("tag"), keep)
        captions |= new
    if plan.captioner:
        new, more = folder.told(whole, captions, plan.captioner, plan.share, report("caption"), keep)
        captions |= new
        failed = list(dict.fromkeys([*failed, *more]))
    if plan.rules is None:
        return Outcome(captions, failed)
    ruled = folder.ruled(captions, plan.rules, plan.count)
    return Outcome(ruled.captions, failed, ruled.fallen, ruled.cut)
