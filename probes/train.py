"""Training a probe of refusal, and everything it is compared with: ``python -m probes.train MODEL PROMPTS``."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from interp.cache import ActivationCache
from interp.cache.identity import canonical_json
from interp.errors import UsageError
from interp.prompts.prompt import PromptSet
from interp.provenance import code_digest
from interp.stats import PERMUTATIONS
from interp.study import Claim
from probes.cells import Cells
from probes.controls import excess, permutation_null, random_direction_null, surface_baselines
from probes.evidence import EMBEDDING, TWIN, Evidence, HeldOut, curve
from probes.fitting import ESTIMATORS, fit_folds, fit_whole
from probes.probe import Probe
from probes.record import evidence_record, probe_record
from probes.sample import Sample, take_sample
from probes.sweep import Sweep, sweep

CHOSEN = "with the largest hit rate minus false alarm rate on rows that probes fitted without their fold had not seen"


@dataclass(frozen=True, slots=True)
class TrainedProbe:
    """A probe with what it was judged by.

    Attributes:
        probe: ready for `probes.files.save_probe`.
        sample: the rows it is of.
        swept: the logistic probes of every layer and fold.
        held_out: what the probes of the folds said of rows they had not seen.
        evidence: metrics, cells, baselines and controls.
        claim: what may be said of it.
    """

    probe: Probe
    sample: Sample
    swept: Sweep
    held_out: HeldOut
    evidence: Evidence
    claim: Claim


def train_probe(
    cache: ActivationCache,
    prompts: PromptSet,
    refused: Sequence[bool | None] | Bool[ndarray, " prompt"],
    *,
    position: str,
    estimator: str = "logistic",
    layer: int | None = None,
    seed: int = 0,
    random_twin: ActivationCache | None = None,
    labelled: str = "given by the caller",
    permutations: int = PERMUTATIONS,
) -> TrainedProbe:
    """Fits a probe of refusal at one position and gathers the evidence for and against it.

    Every category is left out in turn where there are three, else groups are. Layer, penalty and threshold of a fold
    are chosen on validation rows that are not its test rows; logistic probes choose the layer for every estimator.
    The probe in the result is fitted on all rows, at the layer that most folds chose.

    Args:
        cache: states of the model.
        prompts: those of the cache, in its order; their categories, groups and labels are used.
        refused: what the model did with each; None leaves a prompt out.
        position: where the states are read.
        estimator: one of `ESTIMATORS`.
        layer: the only one to consider; without it validation chooses among all but layer 0, which is a baseline.
        seed: of folds, bootstrap, permutations and random directions.
        random_twin: states of the model with random weights, a baseline; a probe without it is not established.
        labelled: how ``refused`` was found, for the record.
        permutations: of the labels, at least 200 in a report.

    Raises:
        UsageError: for an unknown estimator, a position or layer that is not stored, fewer than three groups, or
            fewer than ten prompts that were refused, or complied with.
        ModelMismatch: when a cache is of other prompts, or the twin's layers are others.
        NonFinite: when a state is NaN or infinite.
    """
    if estimator not in ESTIMATORS:
        raise UsageError(f"unknown estimator {estimator!r}; choose one of {', '.join(ESTIMATORS)}.")
    sample = take_sample(cache, prompts, refused, position=position, layer=layer, seed=seed)
    swept = sweep(sample.states, sample.refused, sample.folds)
    chosen = swept.chosen(sample.sites)
    fitted = fit_folds(estimator, sample, swept, chosen, seed=seed)
    held = HeldOut(sample.prompts, sample.refused, fitted.scores, fitted.fired, sample.folds)
    baselines = _baselines(sample, swept, cache, random_twin, position)
    evidence = _evidence(sample, held, baselines, permutations=permutations, seed=seed)
    site = int(np.bincount(chosen).argmax())
    penalty = float(np.median(swept.penalties[site, chosen == site]))
    tensors, threshold = fit_whole(estimator, sample, site, penalty, seed=seed)
    training = {**_provenance(cache, prompts, refused, random_twin), **_training(sample, swept, chosen, cache)}
    training |= {"labelled": labelled, "seed": seed}
    name = str(cache.identity.get("model.name"))
    claim = evidence.claim(name, estimator, cache.layers[site], position, training)
    record = {
        **probe_record(cache, estimator, cache.layers[site], position, training),
        **evidence_record(evidence, claim),
        "threshold": {"value": threshold, "chosen": CHOSEN},
        "curve": curve(swept.scores, held, cache.layers, chosen, seed=seed),
    }
    return TrainedProbe(Probe(record, tensors), sample, swept, held, evidence, claim)


def _baselines(
    sample: Sample, swept: Sweep, cache: ActivationCache, random_twin: ActivationCache | None, position: str
) -> dict[str, Float[ndarray, " row"]]:
    """Held-out scores of what a probe has to beat, on the folds of the probe."""
    baselines = surface_baselines(sample.prompts, sample.refused, sample.folds)
    if 0 in cache.layers:
        baselines[EMBEDDING] = swept.scores[cache.layers.index(0)]
    if random_twin is not None:
        twin = sweep(sample.of(random_twin, cache, position), sample.refused, sample.folds)
        baselines[TWIN] = twin.nested(sample.sites)
    return baselines


def _evidence(
    sample: Sample,
    held: HeldOut,
    baselines: dict[str, Float[ndarray, " row"]],
    *,
    permutations: int,
    seed: int,
) -> Evidence:
    beyond = excess(held.scores, baselines, sample.refused, sample.groups, sample.folds, seed=seed)
    states, drawn = sample.states[sample.sites], {"seed": seed}
    shuffled = permutation_null(states, sample.refused, sample.groups, sample.folds, permutations=permutations, **drawn)
    random = random_direction_null(
        states, sample.refused, sample.folds, observed=beyond.probe.value, directions=permutations, **drawn
    )
    cells = Cells.of(sample.prompts, sample.refused)
    return Evidence(held.metrics(seed=seed), cells, beyond, shuffled, random)


def _provenance(
    cache: ActivationCache,
    prompts: PromptSet,
    refused: Sequence[bool | None] | Bool[ndarray, " prompt"],
    random_twin: ActivationCache | None,
) -> dict[str, Any]:
    labels = canonical_json([None if one is None else bool(one) for one in refused])
    return {
        "model": cache.identity.get("model.name"),
        "run": cache.key,
        "random_twin": None if random_twin is None else random_twin.key,
        "prompts": prompts.digest,
        "labels": hashlib.sha256(labels).hexdigest(),
        "code": code_digest(),
    }


def _training(sample: Sample, swept: Sweep, chosen: ndarray, cache: ActivationCache) -> dict[str, Any]:
    sites, times = np.unique(chosen, return_counts=True)
    return {
        "rows": len(sample.rows),
        "left_out": len(cache) - len(sample.rows),
        "refused": int(sample.refused.sum()),
        "folds": {"kind": sample.split, "names": list(sample.folds.names)},
        "layers_chosen": {str(cache.layers[s]): int(n) for s, n in zip(sites, times, strict=True)},
        "penalties_chosen": swept.penalties[chosen, np.arange(len(chosen))].tolist(),
    }


def main() -> None:
    """The command line, which is that of ``interp probe train``."""
    import typer

    from interp.cli.probe import train

    typer.run(train)


if __name__ == "__main__":
    main()
