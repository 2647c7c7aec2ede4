"""What the tribunal needs of a live model: its answers, patches of its twins, and the trial of its direction.

Everything is kept beside the run, stamped with what decided it, so that a second look loads no model.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool
from numpy import ndarray

from analyses.answers import answers
from analyses.family_profiles import FAMILIES, FamilyProfiles, kept_profiles
from analyses.intervention import Direction, Parts, find_direction, parts, try_direction
from analyses.locators.causal_patch import PatchEffects, patch_effects
from analyses.own_words import own_words, state_log_odds
from interp.cache import ActivationCache
from interp.cache.derived import keep_arrays, keep_json, kept_arrays, kept_json
from interp.causal import Tails, states_at
from interp.judges import Behaviour, behaviour, family_refuses
from interp.models.adapter import Adapter
from interp.prompts import PromptSet
from interp.prompts.families import load_family
from interp.provenance import code_digest

ANSWER_TOKENS = 20
PATCHED = 24
"""Most twins that are patched."""
FEWEST_TWINS = 4
WRITTEN_BY = (
    *("interp.causal", "interp.models", "interp.lens", "interp.prompts"),
    *("analyses.locators", "analyses.intervention", "analyses.own_words"),
)
"""The code that decides an effect; one made by other code is made again."""
Notify = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Hearing:
    """What was seen of a model.

    Attributes:
        behaviours: what it did with every prompt.
        family: the refusal family most of its refusals open as; ``none`` without refusals.
        words: how the first tokens of its own refusals read.
        effects: of patching twins, by the name of the places patched; empty where there is nothing to patch.
        trial: of the direction, columns of `interp.causal.trial`; None where none was tried.
        candidates: what the direction was chosen from; None likewise.
        chosen: about the choice, in words.
        families: how likely every layer makes the openings of refusal families; None where it was not read.
    """

    behaviours: tuple[Behaviour, ...]
    family: str
    words: tuple[str, ...]
    effects: dict[str, PatchEffects]
    trial: pd.DataFrame | None
    candidates: pd.DataFrame | None
    chosen: str
    families: FamilyProfiles | None = None

    @property
    def refused(self) -> Bool[ndarray, " prompt"]:
        """Which prompts it refused."""
        return np.array([b == "refused" for b in self.behaviours])

    @property
    def counted(self) -> Bool[ndarray, " prompt"]:
        """Which prompts it refused or complied with."""
        return np.array([b in ("refused", "complied") for b in self.behaviours])


def hear(
    cache: ActivationCache,
    prompts: PromptSet,
    adapter: Adapter,
    *,
    families: Sequence[str] = FAMILIES,
    directed: bool = True,
    seed: int = 0,
    notify: Notify = lambda _: None,
    progress: Progress = lambda *_: None,
) -> Hearing:
    """Lets the model answer and intervenes on it, or takes what is kept.

    Args:
        cache: of the model on these prompts, with t_post.
        prompts: those of the cache.
        adapter: the model.
        families: refusal families to be read, beside the one the model refuses in; none to read none.
        directed: whether a direction is looked for and tried, which takes longest.
        seed: of splits, strangers and placebos.
        notify: told in one line what is happening.
        progress: called with (steps done, steps in all) of what takes long.
    """
    said = answers(cache, prompts, lambda: adapter, tokens=ANSWER_TOKENS)
    done = tuple(map(behaviour, said))
    refused, complied = (np.array([b == kind for b in done]) for kind in ("refused", "complied"))
    counts = Counter(str(family_refuses(r)) for r, no in zip(said, refused, strict=True) if no)
    common = [name for name, _ in counts.most_common(3)]
    family = common[0] if common else "none"
    words = own_words(adapter.tokenizer, said, refused, complied)
    profiles = None
    if families:
        notify("Reading refusal families by whole openings.")
        read = (*families, *((family,) if family not in (*families, "none") else ()))
        profiles = kept_profiles(cache, adapter, prompts, read, seed=seed, progress=progress)
    if not words:
        why = "the model refuses too little to say what its refusals open with"
        return Hearing(done, family, (), {}, None, None, why, profiles)
    names = tuple(adapter.tokenizer.decode([i]) for i in words)
    session = _Session(cache, prompts, adapter, words, seed, notify, progress)
    trial, candidates, chosen = session.trial(common) if directed else (None, None, "none was looked for")
    return Hearing(done, family, names, session.effects(), trial, candidates, chosen, profiles)


@dataclass(frozen=True)
class _Session:
    """A model, and the words by which its refusals are known."""

    cache: ActivationCache
    prompts: PromptSet
    adapter: Adapter
    words: tuple[int, ...]
    seed: int
    notify: Notify
    progress: Progress

    @property
    def folder(self) -> Path:
        """Where effects are kept."""
        return Path(self.cache.place)

    @property
    def stamp(self) -> dict[str, Any]:
        """What decides an effect."""
        return {"run": self.cache.key, "words": list(self.words), "seed": self.seed, "code": code_digest(*WRITTEN_BY)}

    def effects(self) -> dict[str, PatchEffects]:
        """Patches of a part of the twins, at t_post and at all tokens behind the instruction."""
        twins = some_twins(self.prompts, PATCHED, seed=self.seed)
        if len(twins) < 2 * FEWEST_TWINS:
            return {}
        behind = sum(position != "t_inst" for position in self.cache.positions)
        places = {"t_post": (-1,), **({"the template": tuple(range(-behind, 0))} if behind > 1 else {})}
        return {name: self._patched(name, at, twins) for name, at in places.items()}

    def _patched(self, name: str, at: tuple[int, ...], twins: PromptSet) -> PatchEffects:
        harmful, groups = np.array([p.label == "harmful" for p in twins]), tuple(p.unit for p in twins)
        stamp = {**self.stamp, "at": list(at)}
        file = f"patched {name}".replace(" ", "_")
        kept = kept_arrays(self.folder, file, stamp)
        if kept is None:
            self.notify(f"Patching {len(twins) // 2} twins at {name}, layer by layer.")
            adapter, readout = self.adapter, self.adapter.readout()
            layers = list(range(1, adapter.n_layers + 1))
            tails = Tails.of(adapter, twins.prompts, -min(at))
            found = patch_effects(
                lambda edits: state_log_odds(readout, tails.last(edits), self.words),
                states_at(adapter, twins.prompts, layers, at),
                layers,
                at,
                harmful=harmful,
                groups=groups,
                seed=self.seed,
                progress=self.progress,
            )
            kept = {
                "layers": np.array(layers), "before": found.before, "moved": found.moved, "placebo": found.placebo,
            }  # fmt: skip
            keep_arrays(self.folder, file, stamp, kept)
        layers = [int(layer) for layer in kept["layers"]]
        return PatchEffects(tuple(layers), harmful, groups, kept["before"], kept["moved"], kept["placebo"])

    def trial(self, families: Sequence[str]) -> tuple[pd.DataFrame | None, pd.DataFrame | None, str]:
        """The direction that was found and what it does, or why none was tried."""
        labelled = replace(self.prompts, prompts=tuple(p for p in self.prompts if p.label))
        if len({p.unit for p in labelled}) < 3 * FEWEST_TWINS or len({p.label for p in labelled}) < 2:
            return None, None, "too few labelled prompts to find a direction on some and try it on others"
        kept = kept_json(self.folder, "trial", self.stamp)
        if kept is None:
            own = parts(labelled, seed=self.seed)
            kept = self._tried(own, families)
            keep_json(self.folder, "trial", self.stamp, kept)
        return pd.DataFrame(kept["trial"]), pd.DataFrame(kept["candidates"]), kept["chosen"]

    def _tried(self, own: Parts, families: Sequence[str]) -> dict[str, Any]:
        adapter, words = self.adapter, self.words
        self.notify("Looking for the direction of refusal on some prompts.")
        found = find_direction(adapter, adapter.readout(), own, words, self.progress)
        self.notify("Trying it on other prompts, beside placebos.")
        table = try_direction(adapter, found, own.tried, [load_family(name) for name in families], seed=self.seed)
        return {
            "trial": _records(table), "candidates": _records(found.candidates), "chosen": _chosen(found),
        }  # fmt: skip


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON values; NaN becomes null."""
    records: list[dict[str, Any]] = json.loads(table.to_json(orient="records", double_precision=15))
    return records


def _chosen(found: Direction) -> str:
    added = f"put in {float(found.put_in.vector.norm()):.0f} units long at layer {found.put_in.layer}"
    chosen = found.selection.chosen
    if chosen is None:
        return f"no candidate passes the filters of KL and steering, so nothing was taken out; {added}"
    deep = " (nothing passed below the published depth filter, so it was left out)" if found.deep else ""
    return f"taken out by {chosen['edit']} at layer {chosen['layer']}{deep}, {added}"


def some_twins(prompts: PromptSet, most: int, *, seed: int = 0) -> PromptSet:
    """At most so many groups of exactly one harmful and one harmless prompt, drawn at random."""
    labels: dict[str, list[str | None]] = {}
    for prompt in prompts:
        labels.setdefault(prompt.unit, []).append(prompt.label)
    twins = [unit for unit, own in labels.items() if sorted(map(str, own)) == ["harmful", "harmless"]]
    drawn = set(np.random.default_rng(seed).permutation(twins)[:most]) if twins else set()
    return replace(
        prompts, name=f"{len(drawn)} twins of {prompts.name}", prompts=tuple(p for p in prompts if p.unit in drawn)
    )
