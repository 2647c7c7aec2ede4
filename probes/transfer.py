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
from probes.sweep import standardised, youden_threshold

PENALTY = 1e-3


@dataclass(frozen=True, slots=True)
class Transfer:
    """Scores of the probes of every training set on the rows of every model.

    Attributes:
        scores: (training set, model, prompt) log-odds of refusal by the probe of the other half of the prompts; NaN
            for a training set that holds one behaviour only.
        fired: (training set, model, prompt) whether above the threshold of that probe.
        sites: (training set, half) the layer chosen, as a place in the stack of states.
        halves: (prompt,) which half every prompt belongs to.
    """

    scores: Float[ndarray, "trained model prompt"]
    fired: Bool[ndarray, "trained model prompt"]
    sites: Int[ndarray, "trained half"]
    halves: Int[ndarray, " prompt"]


def transfer(
    states: Sequence[Float[Tensor, "site prompt d"]],
    refused: Bool[ndarray, "model prompt"],
    counted: Bool[ndarray, "model prompt"],
    halves: Int[ndarray, " prompt"],
    trained: Sequence[Sequence[int]],
) -> Transfer:
    """Fits one probe per training set, layer and half of the prompts, all in one descent per layer.

    Every probe is tested on prompts it was not trained on, of its own models too. Its layer and threshold are chosen
    on the tested half of the models it was *trained* on, never on another model: so scores on other models are honest
    and those on its own are optimistic.

    Args:
        states: of every model at one position, on the same prompts; the same layers and width.
        refused: what every model did.
        counted: which rows count; empty and broken responses do not.
        halves: 0 or 1 for every prompt; never part a group.
        trained: the numbers of the models of every training set.
    """
    models, prompts = refused.shape
    member = np.stack([np.isin(np.arange(models), chosen) for chosen in trained])
    usable = [(member[t, :, None] & counted & (halves == h)).reshape(-1) for t in range(len(trained)) for h in (0, 1)]
    weights = torch.from_numpy(np.stack(usable, axis=1)).float()
    target = torch.from_numpy(refused.reshape(-1)).float()
    penalty = PENALTY * weights.sum(0).clamp(min=1)
    scores = []
    for site in range(len(states[0])):
        ready, _, _ = standardised(torch.cat([s[site] for s in states])[None])
        direction, bias = fit_logistic(ready, target[None, :, None], weights[None], penalty)
        found = torch.bmm(ready, direction)[0] + bias
        scores.append(found.double().numpy().reshape(models, prompts, len(trained), 2))
    return _tested(np.stack(scores), refused, counted, halves, member)


def _tested(
    scores: Float[ndarray, "site model prompt trained 2"],
    refused: Bool[ndarray, "model prompt"],
    counted: Bool[ndarray, "model prompt"],
    halves: Int[ndarray, " prompt"],
    member: Bool[ndarray, "trained model"],
) -> Transfer:
    trained, models = member.shape
    out = np.full((trained, models, len(halves)), np.nan)
    fired = np.zeros(out.shape, dtype=bool)
    sites = np.zeros((trained, 2), dtype=int)
    for t in range(trained):
        for half in (0, 1):
            tested = halves != half
            rows = member[t, :, None] & counted & tested
            target = refused[rows]
            if target.all() or not target.any():
                continue
            found = [auroc(scores[site][..., t, half][rows], target)[0] for site in range(len(scores))]
            sites[t, half] = site = int(np.argmax(found))
            chosen = scores[site][..., t, half]
            out[t][:, tested] = chosen[:, tested]
            fired[t][:, tested] = chosen[:, tested] > youden_threshold(chosen[rows], target)
    return Transfer(out, fired, sites, halves)
