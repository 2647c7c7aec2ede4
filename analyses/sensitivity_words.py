"""The sentences of the sensitivity report: what survives a change of wording, and what does not."""

from collections.abc import Mapping, Sequence

import pandas as pd

from analyses.detectors import PROBES, SORRY
from analyses.response_judge import JUDGED, Judged
from analyses.subjects import ANSWER_TOKENS, Subject
from probes.train import TrainedProbe


def headlines(
    subjects: Sequence[Subject],
    detectors: pd.DataFrame,
    crossed: pd.DataFrame,
    correlations: pd.DataFrame,
    probes: Mapping[str, TrainedProbe],
    judged: Judged,
) -> tuple[str, ...]:
    """The answer in one sentence, then what it rests on."""
    refusing = [s.name for s in subjects if s.name in probes]
    quiet = [s.name for s in subjects if s.name not in probes]
    lines = [_answer(detectors, refusing)]
    lines += [_own_sentence(name, trained) for name, trained in probes.items()]
    lines += [_quiet_sentence(name, detectors) for name in quiet]
    lines += [_transfer_sentence(crossed, refusing), _profile_sentence(correlations)]
    lines += [_judge_sentence(row) for _, row in judged.held_out.iterrows()]
    return tuple(line for line in lines if line)


def _answer(detectors: pd.DataFrame, refusing: Sequence[str]) -> str:
    chosen = detectors[detectors["model"].isin(refusing)]
    detecting = {d: rows.loc[rows["verdict"] == "detects", "model"].tolist() for d, rows in chosen.groupby("detector")}
    survive = [d for d in (*PROBES, *SORRY) if d in detecting and len(detecting[d]) == len(refusing)]
    fail = [d for d in (*SORRY, *PROBES) if d in detecting and d not in survive]
    verb = "detects" if len(survive) == 1 else "detect"
    kept = f"{_list(survive)} {verb} the refusals of every model that refuses ({len(refusing)})"
    lost = "; ".join(f"{d} those of {len(detecting[d])} ({_list(_short(detecting[d])) or 'none'})" for d in fail)
    if not survive:
        return f"No detector survives the change of wording: {lost}."
    return f"What survives the change of wording: {kept}. What does not: {lost}." if fail else f"All survive: {kept}."


def _own_sentence(name: str, trained: TrainedProbe) -> str:
    beyond = trained.evidence.excess
    failed = [c.name for c in trained.evidence.controls if not c.passed]
    verdict = "all controls passed" if not failed else f"not established: failed {', '.join(failed)}"
    cells = " ".join(trained.evidence.cells.sentences)
    return (
        f"{name}: probe AUROC {_interval(beyond.probe)} on held-out categories, {beyond.value.value:+.3f} "
        f"[{beyond.value.lo:+.3f}, {beyond.value.hi:+.3f}] over {beyond.best} "
        f"({beyond.baselines[beyond.best].value:.3f}); "
        f"{verdict}.{f' {cells}' if cells else ''}"
    )


def _quiet_sentence(name: str, detectors: pd.DataFrame) -> str:
    rows = detectors[(detectors["model"] == name) & detectors["detector"].isin((*SORRY, *PROBES))]
    alarms = ", ".join(
        f"{r.detector} {r.false_alarms:.0%} [{r.false_alarms_lo:.0%}, {r.false_alarms_hi:.0%}]"
        for r in rows.itertuples()
    )
    return (
        f"{name} refuses too little for a probe of its own (one cell of the design is empty); "
        f"of the prompts it complied with, detectors fire on: {alarms}."
    )


def _transfer_sentence(crossed: pd.DataFrame, refusing: Sequence[str]) -> str:
    single = crossed[crossed["trained"].isin(refusing) & crossed["tested"].isin(refusing)]
    other = single[single["trained"] != single["tested"]]
    if not len(other):
        return ""
    worst = other.sort_values("auroc").iloc[0]
    return (
        f"A probe trained on one model and tested on another reaches AUROC {other['auroc'].median():.3f} in the middle "
        f"of {len(other)} pairs; the worst is {worst['trained']} on {worst['tested']}, {worst['auroc']:.3f} "
        f"[{worst['lo']:.3f}, {worst['hi']:.3f}]."
    )


def _profile_sentence(correlations: pd.DataFrame) -> str:
    if not len(correlations):
        return ""
    low = correlations.sort_values("rho").iloc[0]
    return (
        f"Layer profiles agree in order with Spearman {correlations['rho'].median():.2f} in the middle of "
        f"{len(correlations)} pairs; least {low['first']} and {low['second']}, {low['rho']:.2f} "
        f"[{low['lo']:.2f}, {low['hi']:.2f}]."
    )


def _judge_sentence(row: pd.Series) -> str:
    return (
        f"The lexical-free judge of responses, each {row['left_out']} left out in turn: AUROC {row['auroc']:.3f} "
        f"[{row['lo']:.3f}, {row['hi']:.3f}], {row['excess']:+.3f} "
        f"[{row['excess_lo']:+.3f}, {row['excess_hi']:+.3f}] over the {row['baseline']} of the response "
        f"({row['baseline_auroc']:.3f})."
    )


def notes(judged: Judged) -> tuple[str, ...]:
    """What the reader must know."""
    read = sum(int(chosen.sum()) for chosen in judged.chosen.values())
    return (
        f"A prompt counts as refused when the model's greedy answer (first {ANSWER_TOKENS} tokens) begins as a phrase "
        "of any refusal family but evasion does; evasive, empty and broken answers count neither as refused nor as "
        "complied. Labels are this behaviour, never harmful or harmless.",
        "probe: logistic, states at t_post, one policy category left out in turn; layer, penalty and threshold chosen "
        "on other categories. probe, family left out: trained on the models that refuse in another way, on other "
        "categories. probe, all models: trained on all models, those that refuse nothing and the tested one included, "
        "still on other categories. tga_paper, tga_released: the published layer rules, fired at any layer. "
        "opening_logodds: first-token lens at the last layer. family: probability above one half that the answer opens "
        "as the family's phrases do (whole openings). keywords: published lists on the answer's text.",
        "detects: hits and AUROC surely above a half and false alarms surely below it. fires alike: false alarms "
        "surely above half the hits. blind: hits surely below a half. quiet: nothing refused and almost no alarms. "
        "Hits and false alarms have Wilson intervals, AUROC a bootstrap over groups, all 95 %.",
        "The layer of a probe is the first whose AUROC has come nine tenths of the way from chance to the best; that "
        "of a rule is the median first firing on refusals. Nothing here is causal: a readable layer need not be one "
        "that the model uses.",
        f"The lexical-free judge reads states of prompt and first sentence of the response ({read} responses); for "
        f"every model it was trained without the kind of refusal that this model gives. At most about {JUDGED} "
        "responses per model.",
    )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)


def _short(names: Sequence[str]) -> list[str]:
    return [name.removeprefix("demo:") for name in names]


def _interval(estimate) -> str:  # type: ignore[no-untyped-def]
    return f"{estimate.value:.3f} [{estimate.lo:.3f}, {estimate.hi:.3f}]"
