"""What a probe must be compared with: shuffled labels, random directions, and baselines that never see a model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from interp.metrics import auroc, bootstrapped
from interp.prompts.prompt import Prompt
from interp.prompts.surface import SURFACES, surface_scores
from interp.stats import PERMUTATIONS, Estimate, group_codes, group_weights, shuffled_labels
from probes.logistic import fit_logistic
from probes.splits import Folds
from probes.sweep import standardised

NULL_PENALTY = 1e-2
NULL_ITERATIONS = 25


@dataclass(frozen=True, slots=True)
class Null:
    """What the best site reaches where there is nothing to find.

    Attributes:
        observed: the best AUROC over sites with the true labels.
        drawn: the best AUROC over sites in every draw.
        p: share of draws at least as good, (1 + hits) / (1 + draws).
    """

    observed: float
    drawn: Float[ndarray, " draw"]
    p: float

    @property
    def upper(self) -> float:
        """The 95th percentile of the draws."""
        return float(np.quantile(self.drawn, 0.95))


def permutation_null(
    states: Float[Tensor, "site row d"],
    refused: Bool[ndarray, " row"],
    groups: Sequence[str],
    folds: Folds,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Null:
    """Probes fitted to shuffled labels: half of the folds train, the others test, and the best site is taken.

    Labels are exchanged within groups where a group holds both behaviours, else over all rows. The maximum over sites
    is taken in every permutation, so choosing the best layer is paid for (Westfall & Young 1993). All permutations
    are columns of one fit.

    Args:
        states: one site per layer and position.
        refused: what the model did.
        groups: of the rows; never parted.
        folds: the first half of them, in order, trains.
        permutations: how many, at least 200 in a report.
        seed: of the permutations.
    """
    rng = np.random.default_rng(seed)
    codes = group_codes(groups)
    labels = [refused, *(shuffled_labels(refused, codes, rng) for _ in range(permutations))]
    target = torch.from_numpy(np.stack(labels, axis=1)).float()
    trained = folds.of < (len(folds) + 1) // 2
    best = np.zeros(permutations + 1)
    ready, _, _ = standardised(states)
    weights = torch.from_numpy(trained).float()[None, :, None]
    penalty = torch.full((permutations + 1,), NULL_PENALTY * float(trained.sum()))
    for site in ready.split(1):  # one at a time: all permutations of all sites would fill the memory
        direction, _ = fit_logistic(site, target[None], weights, penalty, iterations=NULL_ITERATIONS)
        scores = torch.bmm(site, direction)[0].double().numpy()
        tested = ~trained
        best = np.fmax(best, [auroc(scores[tested, k], labels[k][tested])[0] for k in range(len(labels))])
    return Null(float(best[0]), best[1:], float((1 + (best[1:] >= best[0]).sum()) / (1 + permutations)))


def random_direction_null(
    states: Float[Tensor, "site row d"],
    refused: Bool[ndarray, " row"],
    folds: Folds,
    *,
    observed: float,
    directions: int = PERMUTATIONS,
    seed: int = 0,
) -> Null:
    """Random directions instead of fitted ones, turned the right way round on one half of the folds.

    A high value says that refusal moves the states so much that any direction reads it.

    Args:
        states: one site per layer and position.
        refused: what the model did.
        folds: the first half of them orients, the others test.
        observed: what the probe reached.
        directions: how many, the same for all sites.
        seed: of the directions.
    """
    ready, _, _ = standardised(states)
    drawn = torch.randn(states.shape[-1], directions, generator=torch.Generator().manual_seed(seed))
    trained = folds.of < (len(folds) + 1) // 2
    best = np.zeros(directions)
    for site in ready:
        scores = (site @ drawn).double().numpy()
        for k in range(directions):
            up = auroc(scores[trained, k], refused[trained])[0] >= 0.5
            found = auroc(scores[~trained, k], refused[~trained])[0]
            best[k] = max(best[k], found if up else 1 - found)
    return Null(observed, best, float((1 + (best >= observed).sum()) / (1 + directions)))


@dataclass(frozen=True, slots=True)
class Excess:
    """A probe beside what needs no model.

    Attributes:
        probe: its AUROC.
        baselines: AUROC by name: the surfaces of the prompt, and layer 0.
        best: the name of the best baseline.
        value: AUROC of the probe minus that of the best baseline; its interval comes from the same resamples.
    """

    probe: Estimate
    baselines: dict[str, Estimate]
    best: str
    value: Estimate


def surface_baselines(
    prompts: Sequence[Prompt], refused: Bool[ndarray, " row"], folds: Folds
) -> dict[str, Float[ndarray, " row"]]:
    """Held-out scores of every surface of the prompts, on the folds of the probe."""
    return {name: surface_scores(name, prompts, refused, folds.splits()) for name in SURFACES}


def excess(
    scores: Float[ndarray, " row"],
    baselines: dict[str, Float[ndarray, " row"]],
    refused: Bool[ndarray, " row"],
    groups: Sequence[str],
    folds: Folds,
    *,
    seed: int = 0,
) -> Excess:
    """The AUROC of a probe above the best baseline, in resampled groups.

    Pairs are compared within folds only, since every fold has its own probe. The best baseline is taken on the test
    rows themselves, which favours the baseline.

    Args:
        scores: held-out scores of the probe.
        baselines: held-out scores by name, on the same folds.
        refused: what the model did.
        groups: resampled together.
        folds: of the scores.
        seed: of the bootstrap.
    """
    weights = group_weights(groups, seed=seed)
    found = {name: _both(s, refused, weights, folds) for name, s in {"probe": scores, **baselines}.items()}
    estimates = {name: bootstrapped(drawn, value, len(refused)) for name, (value, drawn) in found.items()}
    best = max(baselines, key=lambda name: found[name][0])
    difference = bootstrapped(found["probe"][1] - found[best][1], found["probe"][0] - found[best][0], len(refused))
    probe = estimates.pop("probe")
    return Excess(probe, estimates, best, difference)


def _both(
    scores: Float[ndarray, " row"], refused: Bool[ndarray, " row"], weights: ndarray, folds: Folds
) -> tuple[float, Float[ndarray, " resample"]]:
    return float(auroc(scores, refused, folds=folds.of)[0]), auroc(scores, refused, weights, folds.of)
