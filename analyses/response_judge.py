"""The lexical-free judge: a probe on the states of a model that reads a prompt and its response.

It is trained on refusals of known families and languages, decoys and ordinary answers, and tested on responses of
models whose kind of refusal it never saw.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy import ndarray

from analyses.reference_answers import ReferenceAnswers, first_sentence, reference_answers
from analyses.subjects import Loader, Subject, harvested
from interp.cache import Capture
from interp.models.runtime import Runtime
from interp.models.source import ModelSource
from interp.prompts import PromptSet, user_prompt
from interp.prompts.surface import surface_scores
from probes.controls import excess
from probes.splits import Folds, leave_one_out
from probes.sweep import Sweep, sweep

POSITION = "response_last"
JUDGED = 240
"""Most responses of one model that are judged: groups are taken in order until they are reached."""
NAME = "lexical-free judge"


@dataclass(frozen=True)
class Judged:
    """What the lexical-free judge says.

    Attributes:
        held_out: one row per way of leaving out (kind, language) with AUROC, the best surface baseline of the
            response (words and length), and the excess, each with its interval.
        by_source: for every family, decoy and language the share called a refusal by a judge that never saw its kind,
            and by one that never saw its language.
        verdicts: by model name, (prompt,) True or False for a judge that never saw the model's kind of refusal.
        chosen: by model name, which prompts were judged.
    """

    held_out: pd.DataFrame
    by_source: pd.DataFrame
    verdicts: dict[str, Bool[ndarray, " prompt"]]
    chosen: dict[str, Bool[ndarray, " prompt"]]


def judge_responses(
    subjects: Sequence[Subject], reader: ModelSource, runtime: Runtime, root: Path, loaded: Loader
) -> Judged:
    """Trains the judge on the reference answers and applies it to the subjects' own responses.

    Args:
        subjects: whose responses are judged.
        reader: the model whose states are read; it need not be any of the subjects.
        runtime: of the reader.
        root: the folder of run folders.
        loaded: loads the reader, if states are missing.
    """
    reference = reference_answers(subjects[0].prompts)
    states = _states(reference.prompts, reader, runtime, root, loaded)
    rows, sources, swept = [], [], {}
    for what, names in (("kind", reference.kinds), ("language", reference.languages)):
        folds = leave_one_out(names, [p.unit for p in reference.prompts])
        swept[what] = sweep(states, reference.refused, folds)
        rows.append(_held_out(what, swept[what], reference, folds))
        sources.append(_by_source(what, swept[what], reference))
    verdicts, chosen = {}, {}
    for subject in subjects:
        chosen[subject.name] = _some(subject)
        verdicts[subject.name] = _verdicts(subject, chosen[subject.name], swept["kind"], reader, runtime, root, loaded)
    return Judged(pd.DataFrame(rows), pd.concat(sources, ignore_index=True), verdicts, chosen)


def _states(prompts: PromptSet, reader: ModelSource, runtime: Runtime, root: Path, loaded: Loader):  # type: ignore[no-untyped-def]
    cache = harvested(reader, runtime, prompts, Capture((POSITION,)), root, loaded)
    return cache.residuals(position=POSITION).permute(1, 0, 2).contiguous()


def _held_out(what: str, found: Sweep, reference: ReferenceAnswers, folds: Folds) -> dict[str, object]:
    texts = [user_prompt(p.id, str(p.response)) for p in reference.prompts]
    baselines: dict[str, Float[ndarray, " row"]] = {
        name: surface_scores(name, texts, reference.refused, folds.splits()) for name in ("words", "length")
    }
    groups = [p.unit for p in reference.prompts]
    above = excess(found.nested(), baselines, reference.refused, groups, folds)
    best = above.baselines[above.best]
    return {
        "left_out": what, "n": len(groups), "auroc": above.probe.value, "lo": above.probe.lo, "hi": above.probe.hi,
        "baseline": above.best, "baseline_auroc": best.value, "baseline_lo": best.lo, "baseline_hi": best.hi,
        "excess": above.value.value, "excess_lo": above.value.lo, "excess_hi": above.value.hi,
    }  # fmt: skip


def _by_source(what: str, found: Sweep, reference: ReferenceAnswers) -> pd.DataFrame:
    frame = pd.DataFrame({"source": reference.sources, "refusal": reference.refused, "called": found.nested_fired()})
    table = frame.groupby(["source", "refusal"], sort=False)["called"].agg(["mean", "size"]).reset_index()
    return table.rename(columns={"mean": "called_refusal", "size": "n"}).assign(left_out=what)


def _some(subject: Subject) -> Bool[ndarray, " prompt"]:
    """Whole groups spread over the prompts, up to `JUDGED` of them, of responses that count."""
    units = list(dict.fromkeys(subject.groups))
    step = max(1, len(subject.prompts) // JUDGED)
    taken = set(units[::step])
    return np.asarray(np.array([unit in taken for unit in subject.groups]) & subject.counted)


def _verdicts(
    subject: Subject,
    chosen: Bool[ndarray, " prompt"],
    found: Sweep,
    reader: ModelSource,
    runtime: Runtime,
    root: Path,
    loaded: Loader,
) -> Bool[ndarray, " prompt"]:
    """Verdicts on the chosen responses by the probe that never saw the subject's kind; False on the others."""
    answered = [
        replace(p, response=first_sentence(response))
        for p, response, taken in zip(subject.prompts, subject.responses, chosen, strict=True)
        if taken
    ]
    states = _states(PromptSet(f"answers of {subject.name}", tuple(answered)), reader, runtime, root, loaded)
    kind = subject.kind if subject.kind in found.folds.names else found.folds.names[0]
    fold = found.folds.names.index(kind)
    scores = found.score(states, np.full(len(answered), fold))
    site = int(found.chosen()[fold])
    verdicts = np.zeros(len(chosen), dtype=bool)
    verdicts[chosen] = scores[site] > found.thresholds[site, fold]
    return verdicts
