"""What ``probe.json`` says of a probe, as plain JSON values, and the same in sentences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from interp.cache import ActivationCache
from interp.stats import Estimate
from interp.study import Claim
from probes.controls import Null
from probes.evidence import Evidence, interval, signed
from probes.files import ProbeFileError
from probes.probe import COMPARED, Probe

NAMES = ("model.name", "model.revision")


def probe_record(
    cache: ActivationCache, estimator: str, layer: int, position: str, training: dict[str, Any]
) -> dict[str, Any]:
    """What a probe is and what it was made of; the model is described by fields of the cache's identity."""
    model = {field: cache.identity[field] for field in (*NAMES, *COMPARED) if field in cache.identity}
    about = {"estimator": estimator, "layer": layer, "position": position, "d_model": cache.d_model}
    return {**about, "model": model, "training": training}


def evidence_record(evidence: Evidence, claim: Claim) -> dict[str, Any]:
    """Metrics, controls, baselines, excess, cells and the verdict; a number that does not exist is None."""
    nulls = {"shuffled labels": evidence.shuffled, "random directions": evidence.random}
    return {
        "metrics": {name: _plain(found) for name, found in evidence.metrics.items()},
        "controls": {
            "tests": [asdict(control) for control in evidence.controls],
            "nulls": {name: _null(null) for name, null in nulls.items()},
        },
        "baselines": {name: _plain(found) for name, found in evidence.excess.baselines.items()},
        "excess": {"over": evidence.excess.best, **_plain(evidence.excess.value)},
        "cells": evidence.cells.counts,
        "said": list(evidence.cells.sentences),
        "established": claim.established,
        "verdict": claim.verdict,
    }


def number(value: float) -> float | None:
    """A number for JSON, which knows no NaN and no infinity."""
    return float(value) if math.isfinite(value) else None


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {name: number(getattr(estimate, name)) for name in ("value", "lo", "hi")} | {"n": estimate.n}


def _null(null: Null) -> dict[str, Any]:
    return {"observed": number(null.observed), "upper": number(null.upper), "p": null.p, "draws": len(null.drawn)}


def summary(probe: Probe) -> list[str]:
    """What a person reads of a probe: the headline, the controls, whether it is established, the rest.

    Raises:
        ProbeFileError: for a record that does not say these things.
    """
    try:
        return _summary(probe)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProbeFileError(
            f"{probe.place}: its record lacks something ({error!r}); train the probe again."
        ) from error


def _summary(probe: Probe) -> list[str]:
    record = probe.record
    excess, baselines = _estimate(record["excess"]), record["baselines"]
    lines = [
        f"{probe.estimator} probe of {record['model'].get('model.name')}, layer {probe.layer} at {probe.position}",
        f"Excess AUROC {signed(excess)} over the best baseline, {record['excess'].get('over')} (n = {excess.n})",
        "",
        *_controls(record["controls"].get("tests", [])),
        _verdict(record),
        "",
        "Held out, with 95 % intervals over groups:",
        *(_line(name, found) for name, found in record["metrics"].items()),
        "Baselines, AUROC:",
        *(_line(name, found) for name, found in baselines.items()),
        "Asked and done:",
        *_cells(record["cells"]),
        *(f"  {sentence}" for sentence in record["said"]),
    ]
    return [*lines, *_training(record["training"], record["threshold"])]


def _verdict(record: Mapping[str, Any]) -> str:
    failed = [test["name"] for test in record["controls"].get("tests", []) if not test["passed"]]
    return (
        f"Established: {record['verdict']}"
        if record["established"]
        else f"Not established: failed {', '.join(failed)}."
    )


def _controls(tests: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"  {'pass' if t['passed'] else 'FAIL'}  {t['name']}: {t['found']} (needed: {t['needed']})" for t in tests]


def _line(name: str, found: Mapping[str, Any]) -> str:
    estimate = _estimate(found)
    return f"  {name:<36} {interval(estimate) if estimate.n else 'none'}"


def _cells(cells: Mapping[str, Mapping[str, int]]) -> list[str]:
    return [f"  {kind:<12} {row.get('refused')} refused, {row.get('complied')} complied" for kind, row in cells.items()]


def _training(training: Mapping[str, Any], threshold: Mapping[str, Any]) -> list[str]:
    folds, layers = training["folds"], training["layers_chosen"]
    return [
        f"Folds: {folds['kind']}, {len(folds['names'])} of them.",
        f"Layers chosen on validation: {', '.join(f'{layer} ({n} folds)' for layer, n in layers.items())}.",
        f"Labels: {training.get('labelled')}.",
        f"Threshold: {threshold['value']:.3f}, {threshold.get('chosen')}.",
    ]


def _estimate(found: Mapping[str, Any]) -> Estimate:
    value, lo, hi = (math.nan if found.get(k) is None else float(found[k]) for k in ("value", "lo", "hi"))
    return Estimate(value, lo, hi, int(found.get("n") or 0))
