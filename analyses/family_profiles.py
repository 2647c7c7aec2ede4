"""At which layers the openings of every refusal family become likely, whatever words the model itself uses.

Whole openings are read by their sequences, through a lens tuned on the states in which other prompts' openings are
said: a lens tuned at t_post alone reads what comes after it no better than the logit lens does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from analyses.locators.openings import draw_groups, encoded_prompts, keep_openings
from analyses.locators.sequence_likelihood import SequenceLikelihood, likelihood_curve, sequence_likelihood
from analyses.panel import TUNED
from analyses.sample import DIFFERENCE, Sample
from analyses.scan_tables import mean_rows
from interp.cache import ActivationCache
from interp.cache.derived import keep_arrays, kept_arrays
from interp.lens import Readout, TunedLens
from interp.lens.translator import divergences
from interp.models.adapter import Adapter
from interp.models.opening_states import contexts_of, opening_states
from interp.models.phrase_trie import PhraseTrie
from interp.prompts import PromptSet
from interp.prompts.families import load_family
from interp.provenance import code_digest
from interp.study import LAYERS_COLUMNS

FAMILIES = ("apology", "inability", "policy", "redirect", "lecture", "evasion")
OPENINGS = 4
"""Of each family, those that the model finds most likely."""
READ, LEARNT = 32, 32
"""Most prompts that are read (half of them at most), and others from which openings and lens are learnt."""
FEWEST = 12
"""Prompts of either part below which nothing is read."""
CONTEXTS = 12
"""Places in openings of every prompt at which the lens is tuned, and judged."""
WRITTEN_BY = ("interp.models", "interp.lens", "interp.prompts", "analyses.locators", "analyses.family_profiles")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FamilyProfiles:
    """What was read.

    Attributes:
        read: by prompt, layer and family.
        rows: (prompt,) which of all prompts were read.
        kl: (row, layer) KL(final layer || reading) in nats, averaged over places in openings, through the lens used.
        kl_logit: the same through the logit lens.
    """

    read: SequenceLikelihood
    rows: Bool[ndarray, " prompt"]
    kl: Float[ndarray, "row layer"]
    kl_logit: Float[ndarray, "row layer"]

    def curve(self, family: str, sample: Sample) -> Curve:
        """The curve of one family on the prompts that were read; see `likelihood_curve`."""
        return likelihood_curve(self.read, family, Contrast.of(sample.only(self.rows)))

    def table(self, sample: Sample) -> pd.DataFrame:
        """Likelihoods of every family, and the divergences of the lens, in the columns of a layer table."""
        own = sample.only(self.rows)
        rows: list[tuple[Any, ...]] = []
        for family in self.read.families:
            rows += mean_rows(("sequence_likelihood", family, "answer"), self.read.layers, self.read.of(family), own)
        for name, kl in ((f"kl_to_final{TUNED}", self.kl), ("kl_to_final", self.kl_logit)):
            rows += mean_rows((name, "all", "answer"), self.read.layers, kl, own)
        return pd.DataFrame(rows, columns=list(LAYERS_COLUMNS))

    def onsets(self, sample: Sample) -> pd.DataFrame:
        """The onset of every family's curve, where it separates the two kinds; else never."""
        rows = []
        for family in self.read.families:
            curve = self.curve(family, sample)
            onset, found = curve.onset(), curve.height.lo > curve.null
            ends = (onset.value, onset.lo, onset.hi) if found else (np.inf,) * 3
            rows.append({"family": family, **dict(zip(("onset", "lo", "hi"), ends, strict=True))})
        return pd.DataFrame(rows)


def kept_profiles(
    cache: ActivationCache,
    adapter: Adapter,
    prompts: PromptSet,
    families: Sequence[str],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> FamilyProfiles | None:
    """Reads the families, or takes what is kept beside the run.

    Args:
        cache: of these prompts, in a local folder.
        adapter: the model.
        prompts: those of the cache.
        families: names of refusal families.
        seed: of the draws and the lens.
        progress: called with (prompts done, prompts in all).

    Returns:
        None where there are too few prompts to learn from some and read others, or the tokenizer can write none of the
        families.
    """
    learnt, read = _parts(prompts, seed)
    if min(len(learnt), len(read)) < FEWEST or {p.label for p in read} < {"harmful", "harmless"}:
        return None
    folder, stamp = Path(cache.place), {
        "run": cache.key, "families": list(families), "seed": seed, "code": code_digest(*WRITTEN_BY),
    }  # fmt: skip
    arrays = kept_arrays(folder, "families", stamp)
    if arrays is None:
        arrays = _read(adapter, learnt, read, families, seed, progress)
        if arrays is None:
            return None
        keep_arrays(folder, "families", stamp, arrays)
    ids = {p.id for p in read}
    found = SequenceLikelihood(tuple(families), tuple(int(i) for i in arrays["layers"]), arrays["values"])
    return FamilyProfiles(found, np.array([p.id in ids for p in prompts]), arrays["kl"], arrays["kl_logit"])


def _parts(prompts: PromptSet, seed: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Prompts to learn from, and labelled ones of other groups to read."""
    labelled = tuple(p for p in prompts if p.label)
    if not labelled:
        return (), ()
    read = draw_groups(PromptSet("read", labelled), min(READ, len(labelled) // 2), seed=seed).prompts
    used = {p.unit for p in read}
    others = tuple(p for p in prompts if p.unit not in used)
    learnt = draw_groups(PromptSet("learnt", others), LEARNT, seed=seed).prompts if others else ()
    return learnt, read


def _read(
    adapter: Adapter,
    learnt: Sequence[Any],
    read: Sequence[Any],
    families: Sequence[str],
    seed: int,
    progress: Progress | None,
) -> dict[str, ndarray] | None:
    readout = adapter.readout()
    some, asked = PromptSet("learnt", tuple(learnt)), PromptSet("read", tuple(read))
    kept = keep_openings(adapter, readout, some, [load_family(name) for name in families], keep=OPENINGS)
    tries = [one.trie for one in kept]
    if not any(trie.sequences for trie in tries):
        return None
    rng = np.random.default_rng(seed)
    states, groups = _opening_states(adapter, some, tries, rng)
    layers = range(adapter.n_layers + 1)
    lens = TunedLens.fit(states.flatten(0, 1), layers, readout, groups, model={}, seed=seed)
    found = sequence_likelihood(adapter, readout, asked, tries, lens=lens, progress=progress)
    judged, _ = _opening_states(adapter, asked, tries, rng)
    kl = {name: _divergences(judged, readout, one) for name, one in (("kl", lens), ("kl_logit", None))}
    return {"layers": np.array(found.layers), "values": found.values, **kl}


def _opening_states(
    adapter: Adapter, prompts: PromptSet, tries: Sequence[PhraseTrie], rng: np.random.Generator
) -> tuple[Float[torch.Tensor, "prompt context layer d_model"], list[str]]:
    """States at some places in the openings, of every prompt others; with the group of every prompt and place."""
    contexts = contexts_of(sorted({s for trie in tries for s in trie.sequences}))
    layers, parts = range(adapter.n_layers + 1), []
    for asked in encoded_prompts(adapter, prompts, tries):
        chosen = [contexts[i] for i in rng.permutation(len(contexts))[:CONTEXTS]]
        states = opening_states(adapter, asked.ids, chosen, layers, batch_size=CONTEXTS, picture=asked.picture)
        parts.append(states.float())
    return torch.stack(parts), [p.unit for p in prompts for _ in range(parts[0].shape[0])]


def _divergences(
    states: Float[torch.Tensor, "prompt context layer d_model"], readout: Readout, lens: TunedLens | None
) -> Float[ndarray, "prompt layer"]:
    flat = states.flatten(0, 1)
    final = flat[:, -1]
    read = flat if lens is None else lens.translate(flat)
    kls = divergences(list(read.unbind(1)), final, readout)
    return np.asarray(kls.unflatten(0, states.shape[:2]).mean(1).double().cpu().numpy())


def difference(table: pd.DataFrame) -> pd.DataFrame:
    """Of a table of profiles the rows of a heatmap: every family's contrast."""
    return table[(table["locator"] == "sequence_likelihood") & (table["group"] == DIFFERENCE)]
