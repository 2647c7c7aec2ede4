"""Probes trained on some models and tested on others that refuse in other words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from interp.metrics import auroc
from probes.logistic import fit_logistic
from probes.splits import Folds
from probes.sweep import standardised, youden_threshold

PENALTY = 1e-3


@dataclass(frozen=True, slots=True)
class Transfer:
    """Scores of the probes of every training set on the rows of every model.

    Attributes:
        scores: (training set, model, prompt) log-odds of refusal by the probe of the fold that tests the prompt; NaN
            for a training set that holds one behaviour only.
        fired: (training set, model, prompt) whether above the threshold of that probe.
        sites: (training set, fold) the layer chosen, as a place in the stack of states.
        folds: (prompt,) which fold tests every prompt.
    """

    scores: Float[ndarray, "trained model prompt"]
    fired: Bool[ndarray, "trained model prompt"]
    sites: Int[ndarray, "trained fold"]
    folds: Int[ndarray, " prompt"]


def transfer(
    states: Sequence[Float[Tensor, "site prompt d"]],
    refused: Bool[ndarray, "model prompt"],
    counted: Bool[ndarray, "model prompt"],
    folds: Folds,
    trained: Sequence[Sequence[int]],
) -> Transfer:
    """Fits one probe per training set, layer and fold of the prompts, all in one descent per layer.

    Every probe is tested on prompts that neither trained it nor chose its layer and threshold, of its own models too;
    these are chosen on the fold's validation prompts of the models it was trained on, never on another model.

    Args:
        states: of every model at one position, on the same prompts; the same layers and width.
        refused: what every model did.
        counted: which rows count; empty and broken responses do not.
        folds: of the prompts.
        trained: the numbers of the models of every training set.
    """
    models, prompts = refused.shape
    member = np.stack([np.isin(np.arange(models), chosen) for chosen in trained])
    numbers = range(len(folds))
    usable = [(chosen[:, None] & counted & folds.trained(k)).reshape(-1) for chosen in member for k in numbers]
    weights = torch.from_numpy(np.stack(usable, axis=1)).float()
    target = torch.from_numpy(refused.reshape(-1)).float()
    penalty = PENALTY * weights.sum(0).clamp(min=1)
    scores = []
    for site in range(len(states[0])):
        ready, _, _ = standardised(torch.cat([s[site] for s in states])[None])
        direction, bias = fit_logistic(ready, target[None, :, None], weights[None], penalty)
        found = torch.bmm(ready, direction)[0] + bias
        scores.append(found.double().numpy().reshape(models, prompts, len(trained), len(folds)))
    return _tested(np.stack(scores), refused, counted, folds, member)


def _tested(
    scores: Float[ndarray, "site model prompt trained fold"],
    refused: Bool[ndarray, "model prompt"],
    counted: Bool[ndarray, "model prompt"],
    folds: Folds,
    member: Bool[ndarray, "trained model"],
) -> Transfer:
    trained, models = member.shape
    out = np.full((trained, models, len(folds.of)), np.nan)
    fired = np.zeros(out.shape, dtype=bool)
    sites = np.zeros((trained, len(folds)), dtype=int)
    for t, k in np.ndindex(sites.shape):
        among = member[t, :, None] & counted
        seen = refused[among & folds.trained(k)]
        rows = among & folds.validated(k)
        target = refused[rows]
        if any(labels.all() or not labels.any() for labels in (seen, target)):
            continue
        found = [auroc(site[..., t, k][rows], target)[0] for site in scores]
        sites[t, k] = best = int(np.argmax(found))
        chosen, tested = scores[best][..., t, k], folds.tested(k)
        out[t][:, tested] = chosen[:, tested]
        fired[t][:, tested] = chosen[:, tested] > youden_threshold(chosen[rows], target)
    return Transfer(out, fired, sites, folds.of)
