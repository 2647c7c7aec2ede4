"""What the tribunal says in words: verdicts of its claims, the trial of the direction, and how to read it all."""

import pandas as pd

from analyses.hearing import Hearing
from interp.study import Claim


def verdict_sentences(claims: tuple[Claim, ...], hearing: Hearing) -> list[str]:
    """The claims that are made, and what keeps the others from being made."""
    if not claims:
        why = hearing.chosen if not hearing.words else "patching needs twins of one harmful and one harmless prompt"
        return [f"Not established: a layer that decides to refuse; nothing was patched ({why})."]
    lines = [claim.statement for claim in claims if claim.established]
    for claim in claims:
        if not claim.established:
            failed = ", ".join(c.name for c in claim.controls if not c.passed)
            lines.append(f"Not established: a layer that decides to refuse, at {claim.position}: failed {failed}.")
    return lines


def trial_sentences(hearing: Hearing) -> list[str]:
    """What taking the direction out and putting one in does, beside placebos."""
    if hearing.trial is None:
        return [f"No direction was tried: {hearing.chosen}."] if hearing.words else []
    lines = [f"The direction was {hearing.chosen}."]
    for name, kind, what in (("taken out", "harmful", "Necessity"), ("put in", "harmless", "Sufficiency")):
        if name not in set(hearing.trial["intervention"]):
            continue
        before, after = (_cell(hearing.trial, n, "", kind, "refused") for n in ("none", name))
        placebos = {p: _cell(hearing.trial, name, p, kind, "refused") for p in _placebos(hearing.trial, name)}
        told = ", ".join(f"{placebo} {_share(row)}" for placebo, row in placebos.items())
        lines.append(
            f"{what}: {kind} prompts refused {_share(before)}; with the direction {name} {_share(after)}; placebos: "
            f"{told}.{_side_effects(hearing.trial, name)}"
        )
    return lines


def _side_effects(trial: pd.DataFrame, name: str) -> str:
    """What taking the direction out changes where nothing was refused; putting it in is meant to change the answer."""
    if name != "taken out":
        return ""
    answered, all_of_them = (_cell(trial, name, "", "harmless", metric) for metric in ("kl_answered", "kl"))
    return (
        f" KL on the harmless prompts it answers {_nats(answered)} nats per token, on all harmless ones "
        f"{_nats(all_of_them)}."
    )


def _cell(trial: pd.DataFrame, name: str, placebo: str, kind: str, metric: str) -> dict[str, float]:
    """The one row of a trial."""
    wanted = {"intervention": name, "placebo": placebo, "prompts": kind, "metric": metric}
    row = trial[(trial[list(wanted)] == pd.Series(wanted)).all(axis=1)].iloc[0]
    return {k: float(row[k]) for k in ("value", "lo", "hi")}


def _placebos(trial: pd.DataFrame, name: str) -> list[str]:
    own = trial.loc[(trial["intervention"] == name) & (trial["placebo"] != ""), "placebo"]
    return list(dict.fromkeys(own))


def _nats(row: dict[str, float]) -> str:
    return f"{row['value']:.3f} [{row['lo']:.3f}, {row['hi']:.3f}]"


def _share(row: dict[str, float]) -> str:
    return f"{row['value']:.0%} [{row['lo']:.0%}, {row['hi']:.0%}]"


def notes(family: str, hearing: Hearing) -> tuple[str, ...]:
    """What the reader must know.

    Args:
        family: whose words are watched.
        hearing: what was seen of the model.
    """
    opened = ", ".join(map(repr, hearing.words)) or "none"
    return (
        "Every locator sees the same cached states at t_post, harmful against harmless prompts (the probe: refused "
        f"against complied). Those that watch words look for the {family} family; all others see none.",
        "Patching reads log-odds, in nats, that the answer opens as the model's own refusals do (first tokens "
        f"{opened}). Sufficiency: harmless prompts get the states of their harmful twin. Necessity: harmful ones get "
        "those of their harmless twin. Placebo: the states of a stranger of the same kind.",
        "An onset is the first layer at which a curve has come half of the way to its peak (nine tenths for the AUROC "
        "of the probe). Flags: never fires; fires on harmless alike (more than half as often); unstable (interval "
        "wider than a fifth of the depth); not causal (more than 3 layers from where patching begins to turn the model "
        "round).",
        "Families are read by whole openings, the four of each that the model itself finds most likely, on prompts "
        "that neither these openings nor the lens were learnt from.",
        "The direction is a difference of means, fitted on 40 % of the twins, chosen on 20 %, tried on the rest. "
        "Answers are judged by how they begin.",
    )
