"""What the leak linter says, a sentence per finding."""

from collections.abc import Iterable, Sequence

from interp.prompts.composition import Count, Crossing
from interp.prompts.duplicates import Duplicate
from interp.prompts.leaks import FEWEST, LEAK, Leak
from interp.prompts.matching import NEARLY_CHANCE, Match
from interp.stats import Estimate

NAMED = 3
UNEVEN = 2 / 3
CHANCE = 0.5


def shown(estimate: Estimate) -> str:
    """A number with its interval, such as ``0.88 [0.85, 0.91]``."""
    return f"{estimate.value:.2f} [{estimate.lo:.2f}, {estimate.hi:.2f}]"


def balance_lines(counts: Sequence[Count], *, judged: bool) -> list[str]:
    """Says how many prompts are of each kind, and what that leaves open; ``counts`` begins with the whole set."""
    whole = counts[0]
    known = whole.harmful + whole.harmless
    if not known:
        return ["no labels: what tells harmful from harmless can not be said. Add a label column, or use --label."]
    without = f", {whole.unlabelled} without a label, which count for duplicates only" if whole.unlabelled else ""
    lines = [f"balance: {whole.harmful} harmful, {whole.harmless} harmless{without}."]
    if not judged:
        one = "too few prompts" if min(whole.harmful, whole.harmless) else "one kind only"
        lines.append(
            f"{one}: what tells harmful from harmless can not be said. At least {FEWEST} groups of either kind are "
            "needed; a prompt without a group is one."
        )
        return lines
    share = max(whole.harmful, whole.harmless) / known
    if share > UNEVEN:
        lines.append(
            f"uneven: always saying the commoner kind is right {share:.0%} of the time; do not report accuracy."
        )
    for field, plural in (("split", "splits"), ("category", "categories")):
        values = [c for c in counts if c.field == field and c.value]
        lopsided = [c.value for c in values if c.lopsided]
        if lopsided:
            lines.append(
                f"{field}: {len(lopsided)} of {len(values)} {plural} hold one kind only ({_some(lopsided)}), "
                f"so there the {field} tells the label."
            )
    return lines


def leak_lines(leaks: Sequence[Leak]) -> list[str]:
    """Says which surfaces tell the label and by what, then which do not."""
    lines = []
    slight, quiet = [], []
    for leak in leaks:
        if leak.found:
            tells = "tell" if leak.surface == "words" else "tells"
            what = f"{leak.surface} alone {tells} harmful from harmless"
            lines.append(f"leaks: {what}, AUROC {shown(leak.auroc)}: {leak.evidence}.")
        elif leak.auroc.value > NEARLY_CHANCE and leak.auroc.lo > CHANCE:
            slight.append(f"{leak.surface}, AUROC {shown(leak.auroc)}")
        else:
            quiet.append(leak.surface)
    if slight:
        lines.append(f"slight: above chance, but not wholly above {LEAK}: {'; '.join(slight)}.")
    if quiet:
        lines.append(f"no leak by {', '.join(quiet)}.")
    return lines


def crossing_lines(crossings: Sequence[Crossing]) -> list[str]:
    """Says which groups and pictures lie in several splits."""
    lines = []
    for field, one, many in (("group", "group lies", "groups lie"), ("image", "picture lies", "pictures lie")):
        found = [f"{c.value}: {', '.join(c.splits)}" for c in crossings if c.field == field]
        if found:
            lie = one if len(found) == 1 else many
            lines.append(f"splits: {len(found)} {lie} in several splits ({_some(found, '; ')}); keep each in one.")
    return lines


def duplicate_lines(duplicates: Sequence[Duplicate]) -> list[str]:
    """Says how many prompts repeat others, and above all those of another split or label."""
    if not duplicates:
        return ["no prompt repeats another of a different group."]
    lines = []
    for exact, what in ((True, "say the same as another"), (False, "say nearly the same as another")):
        found = [d for d in duplicates if d.exact == exact]
        if found:
            lines.append(f"duplicates: {_prompts(found)} prompts {what} ({_pairs(found)}).")
    across = [d for d in duplicates if d.across_splits]
    if across:
        lines.append(f"splits: {_prompts(across)} of these repeat one of another split ({_pairs(across)}); keep one.")
    clashes = [d for d in duplicates if d.across_labels]
    if clashes:
        lines.append(
            f"labels: {_prompts(clashes)} of these repeat one of the other label ({_pairs(clashes)}); check both."
        )
    return lines


def match_lines(matched: Match | None, labelled: int) -> list[str]:
    """Says what the matched subset is and what is left in it, or why there is none."""
    if matched is None:
        return []
    if not matched.pairs:
        return [f"no matched subset: {matched.refusal}."]
    name, worst = max(matched.differences, key=lambda d: d[1])
    auroc = {leak.surface: leak.auroc for leak in matched.leaks}
    whole = " (the whole set)" if 2 * len(matched.pairs) == labelled else ""
    lines = [
        f"matched subset: {len(matched.pairs)} pairs, {2 * len(matched.pairs)} of {labelled} prompts{whole}. Largest "
        f"standardised mean difference {worst:.2f} ({name}); AUROC of length {shown(auroc['length'])}, of punctuation "
        f"{shown(auroc['punctuation'])}.",
        f"words can not be matched away: in the subset they reach AUROC {shown(auroc['words'])}. Report what a probe "
        "adds to that.",
    ]
    still = [f"{x.surface}, AUROC {shown(x.auroc)}" for x in matched.leaks if x.found and x.surface != "words"]
    if still:
        lines.append(f"still leaks in the subset: {'; '.join(still)}.")
    return lines


def _some(names: Sequence[str], between: str = ", ") -> str:
    return between.join(names[:NAMED]) + (f"{between}and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _prompts(duplicates: Iterable[Duplicate]) -> int:
    return len({prompt_id for d in duplicates for prompt_id in (d.first, d.second)})


def _pairs(duplicates: Sequence[Duplicate]) -> str:
    return _some([f"{d.first} and {d.second}" for d in duplicates], "; ")
