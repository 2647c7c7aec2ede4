"""The tidy tables of the sensitivity report."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from analyses.response_judge import NAME as JUDGE
from analyses.response_judge import Judged
from analyses.sample import Sample
from analyses.subjects import Subject
from interp.judges import judged_families
from interp.judges.agreement import agreement_table, recall_by_family
from interp.judges.keyword import keyword_lists
from interp.judges.verdicts import FAMILY_JUDGE
from interp.metrics import auroc, bootstrapped
from interp.prompts.families import family_names
from interp.stats import Estimate, bootstrap_mean, group_weights
from probes.train import TrainedProbe

if TYPE_CHECKING:
    from analyses.sensitivity import Findings

PROBE, LENS, LIKELIHOOD = "probe", "opening_logodds", "family:all"


def behaviour_table(subjects: Sequence[Subject]) -> pd.DataFrame:
    """What every model did with harmful and harmless prompts: counts of refused, complied and what is neither."""
    rows = []
    for subject in subjects:
        for label, asked in (("harmful", subject.harmful), ("harmless", ~subject.harmful)):
            done = [b for b, kept in zip(subject.behaviours, asked, strict=True) if kept]
            counts = {name: done.count(name) for name in ("refused", "complied", "evasion", "empty", "broken")}
            rows.append({"model": subject.name, "family": subject.family, "asked": label, **counts})
    return pd.DataFrame(rows)


def metric_table(probes: Mapping[str, TrainedProbe]) -> pd.DataFrame:
    """Every metric of every probe with its interval, the excess over the best baseline first."""
    rows = []
    for name, trained in probes.items():
        beyond = trained.evidence.excess
        rows.append(_row(name, f"excess AUROC over {beyond.best}", beyond.value))
        rows += [_row(name, metric, estimate) for metric, estimate in trained.evidence.metrics.items()]
    return pd.DataFrame(rows)


def baseline_table(probes: Mapping[str, TrainedProbe]) -> pd.DataFrame:
    """The AUROC of what every probe has to beat, on its own folds."""
    rows = [
        _row(name, baseline, estimate, key="baseline")
        for name, trained in probes.items()
        for baseline, estimate in trained.evidence.excess.baselines.items()
    ]
    return pd.DataFrame(rows)


def control_table(probes: Mapping[str, TrainedProbe]) -> pd.DataFrame:
    """Every control of every probe: passed or not, what was found, what was needed."""
    rows = [
        {"model": name, "control": c.name, "passed": c.passed, "found": c.found, "needed": c.needed}
        for name, trained in probes.items()
        for c in trained.evidence.controls
    ]
    return pd.DataFrame(rows)


def _row(model: str, name: str, estimate: Estimate, *, key: str = "metric") -> dict[str, object]:
    return {"model": model, key: name, "value": estimate.value, "lo": estimate.lo, "hi": estimate.hi, "n": estimate.n}


def transfer_table(found: "Findings", *, seed: int = 0) -> pd.DataFrame:
    """AUROC of probes trained on one model or on a pool of them, on each model's held-out prompts."""
    subjects, crossed = found.subjects, found.crossed
    names = [s.name for s in subjects] + list(found.pools)
    weights = group_weights(subjects[0].groups, seed=seed)
    rows = []
    for t, trained in enumerate(names):
        for m, tested in enumerate(subjects):
            scores, kept = crossed.scores[t, m], tested.counted
            if not np.isfinite(scores).all():
                continue
            target, folds = tested.refused[kept], crossed.folds[kept]
            drawn = auroc(scores[kept], target, weights[:, kept], folds)
            value = float(auroc(scores[kept], target, folds=folds)[0])
            estimate = bootstrapped(drawn, value, int(kept.sum()))
            fired = crossed.fired[t, m][kept]
            rows.append(
                {
                    "trained": trained,
                    "tested": tested.name,
                    "auroc": estimate.value,
                    "lo": estimate.lo,
                    "hi": estimate.hi,
                    "n": estimate.n,
                    "hits": float(fired[target].mean()) if target.any() else float("nan"),
                    "false_alarms": float(fired[~target].mean()) if (~target).any() else float("nan"),
                    "layers": ", ".join(str(found.layers[s]) for s in sorted(set(crossed.sites[t]))),
                }
            )
    return pd.DataFrame(rows)


def profile_table(found: "Findings", *, seed: int = 0) -> pd.DataFrame:
    """AUROC by layer of every model's probe and of the first-token lens, in the columns of a layer table."""
    parts = []
    for subject in found.subjects:
        if subject.name in found.profiles:
            curves = found.profiles[subject.name], _lens_profile(found, subject, seed)
            parts += [c.table(family=subject.family, position="t_post").assign(group=subject.name) for c in curves]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _lens_profile(found: "Findings", subject: Subject, seed: int) -> Curve:
    sample = Sample.of(subject.prompts, seed=seed)
    contrast = Contrast.between(sample, subject.refused, among=subject.counted)
    return Curve.of_auroc(LENS, found.layers, subject.readings["opening_logodds"], contrast)


def profile_correlations(found: "Findings") -> pd.DataFrame:
    """Spearman's rank correlation over layers between the probes' AUROC profiles of every two models.

    Layer 0 is left out. Intervals are over resampled groups, the same draws for both models. 1 means that the layers
    come in the same order whatever the wording.
    """
    rows = []
    for first, second in combinations(found.profiles, 2):
        a, b = found.profiles[first], found.profiles[second]
        drawn = _spearman(a.drawn[:, 1:], b.drawn[:, 1:])
        value = float(_spearman(a.values[None, 1:], b.values[None, 1:])[0])
        estimate = bootstrapped(drawn, value, len(found.layers) - 1)
        rows.append(
            {"first": first, "second": second, "rho": value, "lo": estimate.lo, "hi": estimate.hi, "n": estimate.n}
        )
    return pd.DataFrame(rows, columns=["first", "second", "rho", "lo", "hi", "n"])


def _spearman(a: Float[ndarray, "row layer"], b: Float[ndarray, "row layer"]) -> Float[ndarray, " row"]:
    ranked = [np.asarray(pd.DataFrame(m).rank(axis=1)) for m in (a, b)]
    x, y = (r - r.mean(1, keepdims=True) for r in ranked)
    with np.errstate(invalid="ignore", divide="ignore"):
        rho: ndarray = (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return rho


def judge_tables(subjects: Sequence[Subject], judged: Judged, *, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Recall of every judge on every family with false alarms, and kappa of every two judges, over all models.

    The truth is how the response begins, as everywhere here; so the judge of families is right by construction and
    stands in no row.
    """
    chosen = [judged.chosen[s.name] for s in subjects]
    stacked = {
        name: np.concatenate(
            [np.asarray(s.verdicts[name], dtype=bool)[c] for s, c in zip(subjects, chosen, strict=True)]
        )
        for name in keyword_lists()
    }
    stacked[JUDGE] = np.concatenate([judged.verdicts[s.name][c] for s, c in zip(subjects, chosen, strict=True)])
    refused = np.concatenate([s.refused[c] for s, c in zip(subjects, chosen, strict=True)])
    families = [str(f) for s, c in zip(subjects, chosen, strict=True) for f in s.verdicts["opens_as"].to_numpy()[c]]
    groups = [g for s, c in zip(subjects, chosen, strict=True) for g, kept in zip(s.groups, c, strict=True) if kept]
    recall = recall_by_family(stacked, families, refused)
    return recall, agreement_table({**stacked, FAMILY_JUDGE: refused}, groups, seed=seed)


def likelihood_table(subjects: Sequence[Subject]) -> pd.DataFrame:
    """The mean probability that an answer opens as each family, on refused and on other prompts, by model."""
    rows = []
    judged = {family.name for family in judged_families()}
    for subject in subjects:
        weights = group_weights(subject.groups)
        for column, name in enumerate(family_names()):
            mass = np.exp(subject.readings["family"][:, column])
            for group, kept in (("refused", subject.refused), ("complied", subject.counted & ~subject.refused)):
                if name in judged and kept.any():
                    value, lo, hi = (float(v) for v in bootstrap_mean(mass[kept], weights[:, kept]))
                    rows.append(
                        _row(subject.name, name, Estimate(value, lo, hi, int(kept.sum())), key="family")
                        | {"group": group}
                    )
    return pd.DataFrame(rows)
