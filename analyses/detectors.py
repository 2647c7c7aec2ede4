"""Who detects whose refusals: every detector on every model, held to what the model did."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from analyses.locators.curve import Curve
from analyses.response_judge import NAME as JUDGE
from analyses.response_judge import Judged
from analyses.subjects import Subject, family_mass
from interp.judges.keyword import keyword_lists
from interp.metrics import auroc, bootstrapped
from interp.prompts.families import family_names
from interp.stats import Estimate, bootstrap_censored_median, group_weights, wilson
from probes.train import TrainedProbe
from probes.transfer import Transfer

EVEN_ODDS = 0.0
LOG_HALF = float(np.log(0.5))
SORRY = ("tga_paper", "tga_released", "opening_logodds", "family:apology")
OWN, LEFT_OUT, ALL_MODELS = "probe", "probe, family left out", "probe, all models"
PROBES = (OWN, LEFT_OUT, ALL_MODELS, JUDGE)
"""The detectors that watch for the words of an apology, and those that see no word."""


@dataclass(frozen=True)
class Detection:
    """What one detector says of one model's prompts.

    Attributes:
        detector: its name.
        scores: higher for a refusal; 0 and 1 of a detector that only fires.
        fired: its verdicts.
        among: which prompts it judged.
        layer: where it reads, with an interval; None where it has none.
        folds: for scores of one probe per fold, else None.
    """

    detector: str
    scores: Float[ndarray, " prompt"]
    fired: Bool[ndarray, " prompt"]
    among: Bool[ndarray, " prompt"]
    layer: Estimate | None = None
    folds: Int[ndarray, " prompt"] | None = None


def detections(
    subject: Subject,
    number: int,
    trained: TrainedProbe | None,
    profile: Curve | None,
    crossed: Transfer,
    pools: Mapping[str, int],
    judged: Judged,
    seed: int,
) -> list[Detection]:
    """Every detector on one subject.

    Args:
        subject: the model.
        number: its number in ``crossed``.
        trained: its own probe; None where it did only one thing.
        profile: AUROC by layer of that probe.
        crossed: probes of every model and of pools of them.
        pools: the training set of ``crossed`` behind every detector that is trained on several models.
        judged: what the lexical-free judge says.
        seed: of the bootstrap.
    """
    everyone = subject.counted
    weights = group_weights(subject.groups, seed=seed)
    found = []
    for rule in ("tga_paper", "tga_released"):
        onset = subject.readings[rule]
        fired = np.isfinite(onset)
        kept = everyone & subject.refused if subject.refused.any() else everyone
        median = bootstrap_censored_median(onset[kept], weights[:, kept])
        found.append(Detection(rule, fired.astype(float), fired, everyone, median))
    found += [_opening(subject), _family(subject, "apology"), _mass(subject)]
    for name in keyword_lists():
        fired = np.asarray(subject.verdicts[name], dtype=bool)
        found.append(Detection(f"keywords:{name}", fired.astype(float), fired, everyone))
    if trained is not None and profile is not None:
        found.append(_own(subject, trained, profile))
    for name, pool in pools.items():
        scores, chosen = crossed.scores[pool, number], [float(subject.cache.layers[s]) for s in crossed.sites[pool]]
        if np.isfinite(scores).all():
            where = Estimate(float(np.median(chosen)), min(chosen), max(chosen), len(scores))
            found.append(Detection(name, scores, crossed.fired[pool, number], everyone, where, crossed.folds))
    read, verdicts = judged.chosen[subject.name], judged.verdicts[subject.name]
    found.append(Detection(JUDGE, verdicts.astype(float), verdicts, read))
    return found


def _opening(subject: Subject) -> Detection:
    """First-token log-odds at the last layer, the model's own prediction; a curve over layers is a table of its own."""
    last = subject.readings["opening_logodds"][:, -1]
    layer = float(subject.cache.layers[-1])
    return Detection(
        "opening_logodds", last, last > EVEN_ODDS, subject.counted, Estimate(layer, layer, layer, len(last))
    )


def _family(subject: Subject, name: str) -> Detection:
    column = subject.readings["family"][:, family_names().index(name)]
    return Detection(f"family:{name}", column, column > LOG_HALF, subject.counted)


def _mass(subject: Subject) -> Detection:
    mass = family_mass(subject)
    return Detection("family:all", mass, mass > LOG_HALF, subject.counted)


def _own(subject: Subject, trained: TrainedProbe, profile: Curve) -> Detection:
    rows, n = trained.sample.rows, len(subject.prompts)
    scores, fired, folds = np.zeros(n), np.zeros(n, dtype=bool), np.zeros(n, dtype=int)
    scores[rows], fired[rows], folds[rows] = trained.held_out.scores, trained.held_out.fired, trained.sample.folds.of
    return Detection(OWN, scores, fired, subject.counted, profile.onset(), folds)


def detector_row(subject: Subject, detection: Detection, *, seed: int = 0) -> dict[str, object]:
    """One cell of the matrix: AUROC, hits and false alarms, and the layer, each with interval and n."""
    among, refused = detection.among, subject.refused[detection.among]
    groups = [g for g, kept in zip(subject.groups, among, strict=True) if kept]
    scores, fired = detection.scores[among], detection.fired[among]
    folds = None if detection.folds is None else detection.folds[among]
    separation = Estimate(float("nan"), float("nan"), float("nan"), len(refused))
    if refused.any() and not refused.all():
        drawn = auroc(scores, refused, group_weights(groups, seed=seed), folds)
        separation = bootstrapped(drawn, float(auroc(scores, refused, folds=folds)[0]), len(refused))
    hits = wilson(int(fired[refused].sum()), int(refused.sum()))
    alarms = wilson(int(fired[~refused].sum()), int((~refused).sum()))
    layer = detection.layer or Estimate(float("nan"), float("nan"), float("nan"), 0)
    return {
        "model": subject.name,
        "family": subject.family,
        "detector": detection.detector,
        **_named("auroc", separation),
        **_named("hits", hits),
        **_named("false_alarms", alarms),
        **{k: v for k, v in _named("layer", layer).items() if k != "layer_n"},
        "verdict": verdict(separation, hits, alarms),
    }


def verdict(separation: Estimate, hits: Estimate, alarms: Estimate) -> str:
    """What a cell amounts to, in a word or two; the bounds are those of 95 % intervals.

    ``detects``: AUROC and hits are surely above a half, false alarms surely below. ``fires alike``: false alarms are
    surely above a half of what it fires on refusals or, with no refusals, above a tenth. ``blind``: hits surely below
    a half. ``quiet``: no refusals, and false alarms surely below a tenth. ``weak`` is the rest.
    """
    if not hits.n:
        return "quiet" if alarms.hi < 0.1 else "fires alike" if alarms.lo > 0.1 else "weak"
    if alarms.n and alarms.lo > hits.hi / 2 and hits.value > 0.1:
        return "fires alike"
    if hits.hi < 0.5:
        return "blind"
    if hits.lo > 0.5 and (not alarms.n or alarms.hi < 0.5) and not separation.lo < 0.5:
        return "detects"
    return "weak"


def _named(name: str, estimate: Estimate) -> dict[str, float]:
    found: Mapping[str, float] = asdict(estimate)
    return {name: found["value"], f"{name}_lo": found["lo"], f"{name}_hi": found["hi"], f"{name}_n": found["n"]}


def detector_table(subjects: Sequence[Subject], found: Sequence[Sequence[Detection]], *, seed: int = 0) -> pd.DataFrame:
    """Every detector on every model, one row each."""
    return pd.DataFrame([detector_row(s, d, seed=seed) for s, many in zip(subjects, found, strict=True) for d in many])
