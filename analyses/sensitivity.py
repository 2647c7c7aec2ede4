"""How much the answer depends on the wording: every detector on models that refuse in different words.

The question: is the mechanism still found when a model refuses without "sorry"? The subjects are models whose way of
refusing is known, or read off their answers; the detectors are published rules that watch for words, and probes on
hidden states that never see a word.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from analyses import sensitivity_figures as figures
from analyses.detectors import ALL_MODELS, LEFT_OUT, Detection, detections, detector_table
from analyses.locators.curve import Curve
from analyses.locators.probe_onset import probe_onset
from analyses.response_judge import Judged
from analyses.sensitivity_tables import (
    baseline_table,
    behaviour_table,
    control_table,
    judge_tables,
    likelihood_table,
    metric_table,
    profile_correlations,
    profile_table,
    transfer_table,
)
from analyses.sensitivity_words import headlines, notes
from analyses.subjects import Subject
from interp.cache import ActivationCache
from interp.errors import UsageError
from interp.judges import as_refused
from interp.prompts import PromptSet
from interp.study import Study
from probes.splits import Folds, by_group
from probes.sweep import FEWEST_ROWS, enough_of_both
from probes.train import TrainedProbe, train_probe
from probes.transfer import Transfer, transfer

POSITION = "t_post"
ALL = "all"
FOLDS = 4
"""Of the probes that are tested on other models."""
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Findings:
    """What the tables, figures and sentences of the report are made of.

    Attributes:
        subjects: the models.
        probes: the probe of each subject that both refused and complied often enough.
        crossed: probes of every model and of every pool of models, on all models.
        pools: the names of the training sets of ``crossed`` past the single models.
        detections: by subject.
        judged: what the lexical-free judge says.
        profiles: by model name, AUROC by layer of its probe.
    """

    subjects: tuple[Subject, ...]
    probes: dict[str, TrainedProbe]
    crossed: Transfer
    pools: tuple[str, ...]
    detections: tuple[tuple[Detection, ...], ...]
    judged: Judged
    profiles: dict[str, Curve]

    @property
    def layers(self) -> tuple[int, ...]:
        """Layer numbers, the same for all subjects."""
        return self.subjects[0].cache.layers


def run(
    subjects: Sequence[Subject],
    judged: Judged,
    *,
    random_twin: ActivationCache | None,
    seed: int = 0,
    notify: Notify = lambda _: None,
    provenance: dict[str, str] | None = None,
) -> Study:
    """Compares the detectors over the subjects.

    Args:
        subjects: two models or more on the same prompts, with the same layers and width.
        judged: the lexical-free judge's verdicts on their responses.
        random_twin: states of the models' configuration with random weights, on the same prompts.
        seed: of folds, bootstrap and permutations.
        notify: told in one line what is happening.
        provenance: what the report should carry, such as the code digest.

    Raises:
        UsageError: when the subjects can not be compared, or none of them refuses.
    """
    require_comparable(subjects)
    found = _find(tuple(subjects), judged, random_twin, seed, notify)
    detectors = detector_table(found.subjects, found.detections, seed=seed)
    profiles = profile_table(found, seed=seed)
    correlations = profile_correlations(found)
    crossed = transfer_table(found, seed=seed)
    recall, kappa = judge_tables(found.subjects, judged, seed=seed)
    tables = {
        "detectors": detectors,
        "behaviour": behaviour_table(found.subjects),
        "probes": metric_table(found.probes),
        "baselines": baseline_table(found.probes),
        "controls": control_table(found.probes),
        "transfer": crossed,
        "layers": profiles,
        "profile_correlations": correlations,
        "judges": recall,
        "kappa": kappa,
        "judge_held_out": judged.held_out,
        "judge_by_source": judged.by_source,
        "family_likelihood": likelihood_table(found.subjects),
    }
    return Study(
        title=f"How much the answer depends on the wording: {len(subjects)} models on {subjects[0].prompts.name}",
        headlines=headlines(found.subjects, detectors, crossed, correlations, found.probes, judged),
        notes=notes(judged),
        tables=tables,
        figures=figures.all_figures(detectors, profiles, crossed, correlations),
        claims=tuple(trained.claim for trained in found.probes.values()),
        about=_about(found.subjects, seed, provenance or {}),
        drawn_from=figures.DRAWN_FROM,
    )


def require_comparable(subjects: Sequence[Subject]) -> None:
    """Raises the errors of `run` before anything else is computed."""
    if len(subjects) < 2:
        raise UsageError("a sensitivity report compares models; give two or more.")
    for first, second in pairwise(subjects):
        mine, other = ((s.cache.layers, s.cache.d_model, s.prompts.digest) for s in (first, second))
        if mine != other:
            raise UsageError(
                f"{first.name} and {second.name} differ in layers, width or prompts; give models of one base."
            )
    if not any(_probed(subject) for subject in subjects):
        raise UsageError(
            f"none of {', '.join(s.name for s in subjects)} both refused and complied with {FEWEST_ROWS} prompts or "
            "more, so there is nothing to detect; give prompts of both kinds, or a model that refuses."
        )


def _probed(subject: Subject) -> bool:
    """Whether there is enough of either behaviour to fit a probe."""
    return enough_of_both(subject.refused[subject.counted])


def _find(
    subjects: tuple[Subject, ...], judged: Judged, random_twin: ActivationCache | None, seed: int, notify: Notify
) -> Findings:
    probes = {}
    for subject in subjects:
        if _probed(subject):
            notify(f"Probing {subject.name}.")
            refused = as_refused(subject.behaviours)
            probes[subject.name] = train_probe(
                subject.cache,
                subject.prompts,
                refused,
                position=POSITION,
                seed=seed,
                random_twin=random_twin,
                labelled="by how the answer begins: as a phrase of any refusal family",
            )
    notify("Testing every probe on every model.")
    crossed, pools = _cross(subjects, [s.name in probes for s in subjects], seed)
    profiles = {name: probe_onset(trained, subjects[0].cache.layers, seed=seed) for name, trained in probes.items()}
    found = []
    for i, subject in enumerate(subjects):
        own, profile = probes.get(subject.name), profiles.get(subject.name)
        named = {LEFT_OUT: _left_out(subject, own is not None), ALL_MODELS: ALL}
        places = {detector: len(subjects) + pools.index(pool) for detector, pool in named.items()}
        found.append(tuple(detections(subject, i, own, profile, crossed, places, judged, seed)))
    return Findings(subjects, probes, crossed, pools, tuple(found), judged, profiles)


def _cross(subjects: Sequence[Subject], usable: Sequence[bool], seed: int) -> tuple[Transfer, tuple[str, ...]]:
    """Every usable model, then pools of them without one kind of refusal or whole, then all models, as training sets.

    Only in the last do the models that refuse nothing stand for complying.
    """
    numbers = range(len(subjects))
    left_out = [_left_out(subject, able) for subject, able in zip(subjects, usable, strict=True)]
    pools = tuple(dict.fromkeys(left_out))
    trained = [[i] if usable[i] else [] for i in numbers]
    trained += [[i for i in numbers if usable[i] and left_out[i] != pool] for pool in pools]
    trained.append(list(numbers))
    crossed = transfer(
        [s.states(POSITION) for s in subjects],
        np.stack([s.refused for s in subjects]),
        np.stack([s.counted for s in subjects]),
        _folds(subjects[0].prompts, seed),
        trained,
    )
    return crossed, (*pools, ALL)


def _left_out(subject: Subject, usable: bool) -> str:
    """The pool that tests a model without having seen its kind of refusal."""
    return f"all that refuse but {subject.kind}" if usable else "all that refuse"


def _folds(prompts: PromptSet, seed: int) -> Folds:
    """Four parts of the categories where there are so many and no group lies in two, else of the groups."""
    categories = [p.category or "" for p in prompts]
    if len(set(categories)) < FOLDS or len({(p.unit, p.category) for p in prompts}) > len({p.unit for p in prompts}):
        return by_group([p.unit for p in prompts], FOLDS, seed=seed)
    return by_group(categories, FOLDS, seed=seed)


def _about(subjects: Sequence[Subject], seed: int, provenance: dict[str, str]) -> dict[str, str]:
    return {
        "models": ", ".join(s.name for s in subjects),
        "prompts": f"{subjects[0].prompts.name}, {len(subjects[0].prompts)}, {subjects[0].prompts.digest[:16]}",
        "runs": ", ".join(s.cache.key for s in subjects),
        "position": POSITION,
        "seed": str(seed),
        **provenance,
    }


def summary(detectors: pd.DataFrame) -> pd.DataFrame:
    """The matrix for a terminal: one row per detector, one column per model, the verdict in every cell."""
    kept = detectors[~detectors["detector"].str.startswith("keywords:")]
    order = list(dict.fromkeys(kept["detector"]))
    grid = kept.pivot(index="detector", columns="model", values="verdict").loc[order]
    grid = grid[list(dict.fromkeys(kept["model"]))].fillna("-")
    return grid.rename(columns=lambda name: name.removeprefix("demo:")).reset_index()
