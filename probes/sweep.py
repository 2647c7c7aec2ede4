"""One probe per layer, position and fold, all fitted together; penalty, layer and threshold chosen on validation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from interp.errors import UsageError
from interp.metrics import auroc
from probes.logistic import fit_logistic
from probes.splits import Folds

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""L2 penalties per training row that validation chooses from, for states of unit variance."""
FEWEST_ROWS = 10
"""Rows of either behaviour below which nothing is fitted."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Held-out scores of the probes of every site, where a site is a layer at a position.

    Attributes:
        scores: (site, row) log-odds that the row was refused, from the probe of its fold, which never saw it.
        fired: (site, row) whether the score is above the threshold chosen on that fold's validation rows.
        validation: (site, fold) AUROC on the validation rows, with the penalty chosen there; NaN where they hold one
            behaviour only.
        directions: (site, fold, d) for the states as stored.
        biases: (site, fold).
        penalties: (site, fold) chosen, per training row.
        thresholds: (site, fold).
        folds: who was tested by whom.
    """

    scores: Float[ndarray, "site row"]
    fired: Bool[ndarray, "site row"]
    validation: Float[ndarray, "site fold"]
    directions: Float[ndarray, "site fold d"]
    biases: Float[ndarray, "site fold"]
    penalties: Float[ndarray, "site fold"]
    thresholds: Float[ndarray, "site fold"]
    folds: Folds

    def chosen(self, sites: Sequence[int] | None = None) -> Int[ndarray, " fold"]:
        """The site with the best validation AUROC in every fold, among ``sites`` or all; the earliest of equals."""
        among = np.arange(len(self.scores)) if sites is None else np.asarray(sites)
        return np.asarray(among[np.nan_to_num(self.validation[among], nan=-1.0).argmax(0)])

    def nested(self, sites: Sequence[int] | None = None) -> Float[ndarray, " row"]:
        """Scores whose layer was chosen without the rows they score: every fold's from its own chosen site."""
        return np.asarray(self.scores[self.chosen(sites)[self.folds.of], np.arange(self.scores.shape[1])])

    def nested_fired(self, sites: Sequence[int] | None = None) -> Bool[ndarray, " row"]:
        """Whether the nested scores exceed their thresholds."""
        return np.asarray(self.fired[self.chosen(sites)[self.folds.of], np.arange(self.fired.shape[1])])

    def score(self, states: Float[Tensor, "site row d"], folds: Int[ndarray, " row"]) -> Float[ndarray, "site row"]:
        """Scores of other states, such as another model's on the same prompts, by the probe of each row's fold."""
        found = torch.empty(states.shape[:2])
        for fold in range(len(self.folds)):
            rows = torch.from_numpy(folds == fold)
            direction = torch.from_numpy(self.directions[:, fold]).float()
            scores = torch.bmm(states[:, rows], direction.unsqueeze(-1)).squeeze(-1)
            found[:, rows] = scores + torch.from_numpy(self.biases[:, fold]).float().unsqueeze(-1)
        return found.numpy().astype(np.float64)


def sweep(
    states: Float[Tensor, "site row d"],
    refused: Bool[ndarray, " row"],
    folds: Folds,
    *,
    penalties: Sequence[float] = PENALTIES,
) -> Sweep:
    """Fits logistic probes of refusal for every site and fold at once.

    Args:
        states: residuals, one site per layer and position.
        refused: what the model did, by row; never what was asked of it.
        folds: the partition.
        penalties: per training row; the best on validation is taken, at every site and fold.

    Raises:
        UsageError: when fewer than ten rows were refused, or complied.
    """
    require_both(refused)
    target = torch.from_numpy(refused).float()
    ready, mean, scale = standardised(states)
    trained = torch.from_numpy(np.stack([folds.trained(k) for k in range(len(folds))], axis=1)).float()
    columns = trained.repeat_interleave(len(penalties), dim=1)
    penalty = columns.sum(0) * torch.tensor(list(penalties)).repeat(len(folds))
    directions, biases = fit_logistic(ready, target[None, :, None], columns[None], penalty)
    scores = (torch.bmm(ready, directions) + biases.unsqueeze(1)).double().numpy()
    picked = _pick(scores.reshape(*scores.shape[:2], len(folds), len(penalties)), refused, folds)
    validation, column, threshold = picked
    taken = torch.from_numpy(column + np.arange(len(folds)) * len(penalties))
    direction = torch.take_along_dim(directions, taken.unsqueeze(1), 2).mT / scale[:, None, None]
    bias = torch.take_along_dim(biases, taken, 1) - (direction @ mean.unsqueeze(-1)).squeeze(-1)
    rows = np.arange(len(refused))
    held_out = scores[np.arange(len(scores))[:, None], rows, taken.numpy()[:, folds.of]]
    return Sweep(
        scores=held_out,
        fired=held_out > threshold[:, folds.of],
        validation=validation,
        directions=direction.double().numpy(),
        biases=bias.double().numpy(),
        penalties=np.asarray(penalties)[column],
        thresholds=threshold,
        folds=folds,
    )


def enough_of_both(refused: Bool[ndarray, " row"]) -> bool:
    """Whether at least `FEWEST_ROWS` rows were refused, and as many complied."""
    return min(int(refused.sum()), int((~refused).sum())) >= FEWEST_ROWS


def require_both(refused: Bool[ndarray, " row"]) -> None:
    """Checks that there are enough refusals and enough answers to tell them apart.

    Raises:
        UsageError: when fewer than ten rows were refused, or complied.
    """
    if not enough_of_both(refused):
        yes, no = int(refused.sum()), int((~refused).sum())
        raise UsageError(
            f"{yes} responses were refused and {no} complied; a probe of refusal needs {FEWEST_ROWS} of each. "
            "Give prompts of both kinds, or a model that refuses some."
        )


def standardised(
    states: Float[Tensor, "site row d"],
) -> tuple[Float[Tensor, "site row d"], Float[Tensor, "site d"], Float[Tensor, " site"]]:
    """States with the mean taken off and divided by one number per site, so that their mean squared norm is 1.

    Centring changes no fit, since the bias is not penalised, and one scale per site only gives penalties a common
    unit; so nothing is learnt from the rows that are tested. Coordinates are not scaled one by one: a penalty on the
    norm would then depend on the basis.

    Returns:
        The states, their mean and their scale; a site of constant states stays 0 with scale 1.
    """
    mean = states.mean(1)
    centred = states - mean.unsqueeze(1)
    scale = centred.square().sum(-1).mean(-1).sqrt()
    # The mean of equal rows may miss them by rounding, which must not be blown up to a scale of 1.
    constant = scale <= 8 * torch.finfo(states.dtype).eps * mean.norm(dim=-1)
    ready = centred / scale.masked_fill(constant, torch.inf)[:, None, None]
    return ready, mean, scale.masked_fill(constant, 1)


def _pick(
    scores: Float[ndarray, "site row fold penalty"], refused: Bool[ndarray, " row"], folds: Folds
) -> tuple[Float[ndarray, "site fold"], Int[ndarray, "site fold"], Float[ndarray, "site fold"]]:
    """The best validation AUROC, the number of its penalty, and the threshold, for every site and fold."""
    sites, _, _, penalties = scores.shape
    best = np.zeros((sites, len(folds)))
    column = np.zeros((sites, len(folds)), dtype=int)
    threshold = np.zeros((sites, len(folds)))
    for fold in range(len(folds)):
        rows = folds.validated(fold)
        for site in range(sites):
            found = [auroc(scores[site, rows, fold, k], refused[rows])[0] for k in range(penalties)]
            # Of equals the strongest penalty is taken, which generalises best.
            place = penalties - 1 - int(np.nan_to_num(found[::-1], nan=-1.0).argmax())
            best[site, fold], column[site, fold] = found[place], place
            threshold[site, fold] = youden_threshold(scores[site, rows, fold, place], refused[rows])
    return best, column, threshold


def youden_threshold(scores: Float[ndarray, " row"], target: Bool[ndarray, " row"]) -> float:
    """The threshold with the largest hit rate minus false alarm rate (Youden 1950), midway between two scores.

    0, the even odds of a logistic probe, where the rows hold one class only.
    """
    if target.all() or not target.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    gain = np.where(target[order], 1 / target.sum(), -1 / (~target).sum()).cumsum()
    ends = np.append(scores[order][1:] < scores[order][:-1], True)  # a threshold can not part equal scores
    place = int(np.where(ends, gain, -np.inf).argmax())
    above = scores[order][place]
    return float((above + scores[order][place + 1]) / 2) if place + 1 < len(scores) else float(above - 1)
