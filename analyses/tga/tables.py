"""What trainings did, side by side and against each other; those that differ by their seed count together."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy import ndarray

from analyses.cross_modal.completeness import transplant_table
from analyses.cross_modal.resampled import as_rows, difference_of, mean_of, told, told_share
from analyses.cross_modal.transfer import CAPTION, DSR, EXCESS, IMAGE, OVER_REFUSAL, TEXT, default_judges
from analyses.tga.evaluation import SLOT, VARIANT
from analyses.tga.groups import (
    LOSS,
    NAMED,
    NO_GUIDE,
    ODDS,
    ORDINARY,
    RETRIEVED,
    TWIN_ODDS,
    Group,
    by_seed,
    over_seeds,
    without_guide,
)
from analyses.tga.runs import BEFORE
from interp.geometry import Profile
from interp.stats import Estimate, group_weights, newcombe, percentile_interval, wilson
from interp.study import LAYERS_COLUMNS

ODDS_GAP = "refusal log-odds of harmful pictures minus twins (nats)"
ALIGNMENT, TEXT_KL = "alignment excess", "text KL (nats per token)"
SEEN_DSR = "DSR of pictures named before"
SHARES = (DSR, OVER_REFUSAL, EXCESS, ORDINARY, NAMED, SEEN_DSR)
ROWS = ("group", "judge", "arm", "measure", "value", "lo", "hi", "n", "seeds", "lowest", "highest")
FEWEST = 5
"""Concepts with an event, and without one, that a bootstrap over concepts needs."""


def variants_table(groups: Sequence[Group]) -> pd.DataFrame:
    """Every measure of every group: the mean over seeds, with a bootstrap interval over concepts, and all seeds' range.

    Returns:
        group, judge, arm, measure, value, lo, hi, n (pairs), seeds, lowest, highest. DSR, over-refusal, excess (DSR
        minus over-refusal) and refusal of ordinary pictures, 0 to 1 (excess -1 to 1); captions named, 0 to 1; caption
        loss; log-odds of a refusal in the model's own openings, of harmful pictures and beyond those of their twins;
        alignment excess over all layers but the first; KL on text prompts, 0 with n = 0 where the language model
        was not trained. Where the model as it was is among the groups, also the DSR of those pictures that it named:
        what is not seen can not be refused for what it shows.
    """
    rows = [row for group in groups for row in _rows(group)]
    before = next((g.first.named for g in groups if g.first.run.variant == BEFORE), None)
    if before is not None:
        for group in groups:
            values = np.where(before, group.values(default_judges()[0], IMAGE, DSR), np.nan)
            found = _share(over_seeds(values), group)
            rows.append(_row(group, (default_judges()[0], IMAGE, SEEN_DSR), found, by_seed(values)))
    return pd.DataFrame(rows, columns=list(ROWS))


def on_pictures(variants: pd.DataFrame) -> pd.DataFrame:
    """The rows of `variants_table` about pictures, by the first judge or by none."""
    chosen: pd.DataFrame = variants[(variants["arm"] == IMAGE) & variants["judge"].isin(["", default_judges()[0]])]
    return chosen


def comparison_table(variants: pd.DataFrame) -> pd.DataFrame:
    """A row per group with its main figures in words, for reading; numbers are in `variants_table`.

    Returns:
        group, seeds, then the measures of pictures by the first judge, and KL on text prompts: mean over seeds with its
        95 % interval.
    """
    judge = default_judges()[0]
    chosen = variants[((variants["arm"] == IMAGE) & (variants["judge"] == judge)) | (variants["judge"] == "")]
    rows: dict[str, dict[str, object]] = {}
    for one in chosen.to_dict("records"):
        row = rows.setdefault(one["group"], {"group": one["group"], "seeds": one["seeds"]})
        said = Estimate(one["value"], one["lo"], one["hi"], one["n"])
        row[one["measure"]] = told_share(said) if one["measure"] in SHARES else told(said)
    return pd.DataFrame(rows.values())


def _rows(group: Group) -> Iterator[tuple[object, ...]]:
    for judge in default_judges():
        for arm in (TEXT, CAPTION, IMAGE):
            for measure in (DSR, OVER_REFUSAL, ORDINARY):
                values = group.values(judge, arm, measure)
                yield _row(group, (judge, arm, measure), _share(over_seeds(values), group), by_seed(values))
            refused = (by_seed(group.values(judge, arm, measure)) for measure in (DSR, OVER_REFUSAL))
            each = [own - twins for own, twins in zip(*refused, strict=True)]
            yield _row(group, (judge, arm, EXCESS), excess_of(group, judge, arm)[0], each)
    named, losses = (group.values("", IMAGE, measure) for measure in (NAMED, LOSS))
    yield _row(group, ("", IMAGE, NAMED), _share(over_seeds(named), group), by_seed(named))
    yield _row(group, ("", IMAGE, LOSS), mean_of(over_seeds(losses), group.weights), by_seed(losses))
    odds, twins = (by_seed(group.values("", IMAGE, measure)) for measure in (ODDS, TWIN_ODDS))
    yield _row(group, ("", IMAGE, ODDS), mean_of(over_seeds(group.values("", IMAGE, ODDS)), group.weights), odds)
    gaps = [own - its for own, its in zip(odds, twins, strict=True)]
    yield _row(group, ("", IMAGE, ODDS_GAP), odds_gap_of(group)[0], gaps)
    excess = alignment_of(group)
    yield _row(group, ("", IMAGE, ALIGNMENT), excess[0], excess[1])
    changed = [member.text_kl for member in group.members if len(member.text_kl)]
    if not changed:
        yield _row(group, ("", TEXT, TEXT_KL), Estimate(0.0, 0.0, 0.0, 0), [0.0])
        return
    means = np.mean(changed, axis=0)
    found = mean_of(means, group_weights([str(i) for i in range(len(means))], seed=group.seed))
    yield _row(group, ("", TEXT, TEXT_KL), found, [float(one.mean()) for one in changed])


def _row(group: Group, name: tuple[str, str, str], found: Estimate, each: Sequence[float]) -> tuple[object, ...]:
    return (group.name, *as_rows(name, found), len(group.members), min(each), max(each))


def _share(values: Float[ndarray, " pair"], group: Group) -> Estimate:
    """The mean of shares, with the bootstrap's interval over concepts, widened where that can not be one.

    Concepts, not pictures, are what is drawn: 12 pictures of one thing, all of them refused, are one thing seen.
    """
    found = mean_of(values, group.weights)
    n = _concepts(~np.isnan(values), group)
    return _widened(found, wilson(found.value * n, n)) if found.n and _is_rare(values, group) else found


def _is_rare(values: Float[ndarray, " pair"], group: Group) -> bool:
    """Whether too few concepts differ from nothing, or from everything, for resamples of them to say how many might.

    Of none no resample differs, and of few most hold one or two: the bootstrap then ends where the data do.
    """
    there = ~np.isnan(values)
    return min(_concepts(there & (np.abs(values) > 0), group), _concepts(there & (np.abs(values) < 1), group)) < FEWEST


def _concepts(chosen: Bool[ndarray, " pair"], group: Group) -> int:
    """How many concepts some pairs are of."""
    return len({unit for unit, is_chosen in zip(group.first.units, chosen, strict=True) if is_chosen})


def _widened(found: Estimate, by_count: Estimate) -> Estimate:
    """An estimate whose interval holds another one too."""
    bounds = (found.lo, by_count.lo, found.value), (found.hi, by_count.hi, found.value)
    return Estimate(found.value, float(np.nanmin(bounds[0])), float(np.nanmax(bounds[1])), found.n)


def excess_of(group: Group, judge: str, arm: str) -> tuple[Estimate, Float[ndarray, " resample"]]:
    """DSR minus over-refusal of the mean over seeds, with its bootstrap draws."""
    harmful, twins = (over_seeds(group.values(judge, arm, measure)) for measure in (DSR, OVER_REFUSAL))
    is_harmful = ~np.isnan(harmful)
    found, drawn = difference_of(np.where(is_harmful, harmful, twins), is_harmful, group.weights)
    if found.n and (_is_rare(harmful, group) or _is_rare(twins, group)):
        found = _widened(found, newcombe(_share(harmful, group), _share(twins, group)))
    return found, drawn


def odds_gap_of(group: Group) -> tuple[Estimate, Float[ndarray, " resample"]]:
    """Refusal log-odds of harmful pictures minus those of their twins, mean over seeds, with its bootstrap draws."""
    harmful, twins = (over_seeds(group.values("", IMAGE, measure)) for measure in (ODDS, TWIN_ODDS))
    is_harmful = ~np.isnan(harmful)
    return difference_of(np.where(is_harmful, harmful, twins), is_harmful, group.weights, shares=False)


def alignment_of(group: Group) -> tuple[Estimate, list[float]]:
    """The alignment excess averaged over layers above 0 and over seeds, and that of every seed."""
    profiles = [member.alignment.excess for member in group.members]
    each = [float(p.value[1:].mean()) for p in profiles]
    drawn = np.mean([p.drawn[:, 1:].mean(1) for p in profiles if p.drawn is not None], axis=0)
    lo, hi = percentile_interval(drawn)
    return Estimate(float(np.mean(each)), float(lo), float(hi), profiles[0].n), each


def difference_table(groups: Sequence[Group]) -> pd.DataFrame:
    """What a group does more than captioning alone, and more than the retrieved text without the loss, pair by pair.

    Returns:
        group, against, judge, measure, value, lo, hi, n: the difference of the means over seeds on pictures, with a
        bootstrap interval over concepts. A group is held against those of `without_guide`.
    """
    rows = []
    for group in groups:
        for other in (without_guide(group, groups, variant) for variant in (NO_GUIDE, RETRIEVED)):
            if other is not None:
                rows += [(group.name, other.name, *row) for row in _differences(group, other)]
    return pd.DataFrame(rows, columns=["group", "against", "judge", "measure", "value", "lo", "hi", "n"])


def _differences(group: Group, other: Group) -> Iterator[tuple[object, ...]]:
    for judge in default_judges():
        refused, twins = (paired(group, other, judge, measure) for measure in (DSR, OVER_REFUSAL))
        yield as_rows((judge, DSR), refused)
        yield as_rows((judge, OVER_REFUSAL), twins)
        yield as_rows((judge, EXCESS), _excess_difference(group, other, judge, (refused, twins)))
    for measure in (NAMED, LOSS, ODDS):
        yield as_rows(("", measure), paired(group, other, "", measure))
    gap, drawn = odds_gap_of(group)
    its_gap, drawn_its = odds_gap_of(other)
    least, most = percentile_interval(drawn - drawn_its)
    found = Estimate(gap.value - its_gap.value, float(least), float(most), min(gap.n, its_gap.n))
    yield as_rows(("", ODDS_GAP), found)


def _excess_difference(group: Group, other: Group, judge: str, parts: tuple[Estimate, Estimate]) -> Estimate:
    """How much more DSR minus over-refusal; ``parts`` are the differences of the two, pair by pair."""
    own, drawn = excess_of(group, judge, IMAGE)
    its, drawn_its = excess_of(other, judge, IMAGE)
    lo, hi = (float(bound) for bound in percentile_interval(drawn - drawn_its))
    found = Estimate(own.value - its.value, lo, hi, min(own.n, its.n))
    changes = (_change(group, other, judge, measure) for measure in (DSR, OVER_REFUSAL))
    return _widened(found, newcombe(*parts)) if found.n and any(_is_rare(c, group) for c in changes) else found


def _change(group: Group, other: Group, judge: str, measure: str) -> Float[ndarray, " pair"]:
    """The difference of the means over seeds, pair by pair, on pictures."""
    own, its = (over_seeds(g.values(judge, IMAGE, measure)) for g in (group, other))
    return np.asarray(own - its)


def paired(group: Group, other: Group, judge: str, measure: str) -> Estimate:
    """The mean over pairs of the difference of the means over seeds.

    That of a share is widened as shares are: what gained and what lost are two counts of concepts.
    """
    change = _change(group, other, judge, measure)
    found = mean_of(change, group.weights)
    if measure in SHARES and found.n and _is_rare(change, group):
        n = _concepts(~np.isnan(change), group)
        gained, lost = (wilson(float(np.nanmean(np.maximum(way, 0))) * n, n) for way in (change, -change))
        return _widened(found, newcombe(gained, lost))
    return found


def scenes_table(groups: Sequence[Group]) -> pd.DataFrame:
    """DSR and over-refusal on pictures by scene, group and judge, worst scene first; the mean over seeds.

    Returns:
        group, scene, judge, measure, value, lo, hi, n (pictures), concepts.
    """
    rows: list[tuple[object, ...]] = []
    for group in groups:
        own = np.array([p.scene or "" for p in group.first.pairs], dtype=object)
        harmful = np.array([p.label == "harmful" for p in group.first.pairs])
        for judge in default_judges():
            refused = over_seeds(np.stack([m.refused[judge, IMAGE] for m in group.members]))
            for scene in dict.fromkeys(own[own != ""]):
                for measure, chosen in ((DSR, harmful), (OVER_REFUSAL, ~harmful)):
                    values = np.where((own == scene) & chosen, refused, np.nan)
                    concepts = _concepts(~np.isnan(values), group)
                    rows.append((group.name, *as_rows((scene, judge, measure), _share(values, group)), concepts))
    columns = ["group", "scene", "judge", "measure", "value", "lo", "hi", "n", "concepts"]
    table = pd.DataFrame(rows, columns=columns)
    first = table[(table["measure"] == DSR) & (table["judge"] == default_judges()[0])]
    worst = first.groupby("scene")["value"].mean().sort_values()
    place = {scene: i for i, scene in enumerate(worst.index)}
    return table.sort_values("scene", key=lambda s: s.map(place), kind="stable").reset_index(drop=True)


def transplants_table(groups: Sequence[Group]) -> pd.DataFrame:
    """The transplant map of every group that has one, of its first training: the columns of the map, and group."""
    found = [(g.name, m.transplants) for g in groups for m in g.members[:1] if m.transplants is not None]
    parts = [transplant_table(one).assign(group=name) for name, one in found]
    return pd.concat(parts, ignore_index=True)


def alignment_table(groups: Sequence[Group]) -> pd.DataFrame:
    """Alignment excess and raw mean cosine by layer and group, the mean over seeds, as a layer table with floors."""
    parts = []
    for group in groups:
        for measure, profiles in (
            ("excess", [member.alignment.excess for member in group.members]),
            ("cosine", [member.alignment.matched for member in group.members]),
        ):
            parts.append(_profile_rows(group.name, measure, profiles))
    return pd.concat(parts, ignore_index=True)


def _profile_rows(name: str, measure: str, profiles: Sequence[Profile]) -> pd.DataFrame:
    lo, hi = percentile_interval(np.mean([p.drawn for p in profiles if p.drawn is not None], axis=0))
    table = pd.DataFrame(
        {
            "locator": measure,
            "family": VARIANT,
            "position": SLOT,
            "group": name,
            "layer": profiles[0].layers,
            "value": np.mean([p.value for p in profiles], axis=0),
            "lo": lo,
            "hi": hi,
            "n": profiles[0].n,
            "floor": np.mean([p.floor for p in profiles], axis=0),
        }
    )
    return table[[*LAYERS_COLUMNS, "floor"]]
