"""Refusal families read through the lens by whole openings, layer by layer, not by their first tokens.

For every prompt, layer and family: log sum over openings of the product over an opening's tokens of the probability
that the lens gives the token at that layer, in the state from which the model would say it (teacher forcing). At the
last layer this is the log-probability that the model's answer opens so. Range: `LOWEST` to 0 nats.

Where it fails: a product of readings at one layer is no probability of a text, for the model never speaks from there;
a logit lens gives early layers the floor whatever they hold, so read them through a tuned lens, with its divergence
from the final layer beside; the opening's own tokens are in the context, so later factors say as much about fluency as
about refusing; and what a family's kept openings do not cover is not seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from analyses.locators.openings import encoded_prompts
from interp.errors import UsageError
from interp.lens import Readout, TunedLens, token_log_probs
from interp.models.adapter import Adapter
from interp.models.family_likelihood import LOWEST
from interp.models.opening_states import contexts_of, opening_states
from interp.models.phrase_trie import PhraseTrie
from interp.prompts import PromptSet


@dataclass(frozen=True, slots=True)
class SequenceLikelihood:
    """How likely each layer makes it that the answer opens as each family does.

    Attributes:
        families: names, in the order of the last axis.
        layers: layer numbers, ascending.
        values: (prompt, layer, family) float64 nats, from the floor to 0.
    """

    families: tuple[str, ...]
    layers: tuple[int, ...]
    values: Float[ndarray, "prompt layer family"]

    def of(self, family: str) -> Float[ndarray, "prompt layer"]:
        """The values of one family.

        Raises:
            UsageError: for a family that was not read.
        """
        if family not in self.families:
            raise UsageError(f"family {family!r} was not read; choose from {', '.join(self.families)}.")
        return self.values[:, :, self.families.index(family)]


def sequence_likelihood(
    adapter: Adapter,
    readout: Readout,
    prompts: PromptSet,
    tries: Sequence[PhraseTrie],
    *,
    layers: Sequence[int] | None = None,
    lens: TunedLens | None = None,
    lowest: float = LOWEST,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> SequenceLikelihood:
    """Reads every opening of some families at every layer, prompt by prompt.

    What is held at once is the states of one prompt's openings; the cost is that of reading the vocabulary once per
    token before which an opening stands and layer, so keep few openings (`analyses.locators.openings`).

    Args:
        adapter: any backend.
        readout: of the same model.
        prompts: what is asked; encoded as for a harvest, without responses.
        tries: the openings kept of each family; one without any gets the floor.
        layers: which layers, ascending; all if left out.
        lens: translates states before they are read; None for the logit lens.
        lowest: the floor, in nats.
        batch_size: how many openings run at once; the values do not depend on it beyond rounding.
        progress: called with (prompts done, prompts in all).

    Raises:
        UsageError: for a batch size below 1, or layers that the tuned lens does not translate.
        ModelError: for a prompt that can not be encoded or leaves the model no room for the openings.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size {batch_size}: give at least 1.")
    layers = tuple(range(adapter.n_layers + 1)) if layers is None else tuple(layers)
    encoded = encoded_prompts(adapter, prompts, tries)
    sequences = sorted({s for trie in tries for s in trie.sequences})
    values = np.full((len(encoded), len(layers), len(tries)), lowest)
    for row, asked in enumerate(encoded if sequences else ()):
        contexts = contexts_of(sequences)
        states = opening_states(adapter, asked.ids, contexts, layers, batch_size=batch_size, picture=asked.picture)
        log_probs = _log_probs(states if lens is None else lens.translate(states, layers), readout, sequences, contexts)
        for column, trie in enumerate(tries):
            if trie.sequences:
                own = torch.stack([log_probs[s] for s in trie.sequences])
                values[row, :, column] = own.logsumexp(0).clamp(min=lowest, max=0.0).numpy()
        if progress:
            progress(row + 1, len(encoded))
    return SequenceLikelihood(tuple(trie.family for trie in tries), layers, values)


def _log_probs(
    states: Float[Tensor, "context layer d_model"],
    readout: Readout,
    sequences: Sequence[tuple[int, ...]],
    contexts: Sequence[tuple[int, ...]],
) -> dict[tuple[int, ...], Float[Tensor, " layer"]]:
    """The log-probability (nats, float64) of each sequence at each layer."""
    tokens = sorted({token for s in sequences for token in s})
    read = token_log_probs(states, readout, tokens=torch.tensor(tokens)).double()
    place = {context: i for i, context in enumerate(contexts)}
    column = {token: i for i, token in enumerate(tokens)}
    return {s: read[[place[s[:k]] for k in range(len(s))], :, [column[token] for token in s]].sum(0) for s in sequences}


def likelihood_curve(found: SequenceLikelihood, family: str, contrast: Contrast) -> Curve:
    """The mean of harmful prompts minus that of harmless ones, of one family, layer by layer; null 0.

    Args:
        found: what was read.
        family: one of its families.
        contrast: of its prompts, in their order.

    Raises:
        UsageError: for a family that was not read.
    """
    return Curve.of_scores("sequence_likelihood", found.layers, found.of(family), contrast, unit="nats")
