"""The refusal vocabulary of HiddenDetect (Jiang et al., ACL 2025, arXiv 2502.14744).

F_l = cos(logits of the state at layer l, r), r the sum of the one-hot vectors of 20 words; FDV_l = mean F_l of harmful
prompts - mean F_l of harmless ones. The "most safety-aware" layers are those with FDV_l > FDV of the last layer
(`Curve.above_last`).

Range: F in [-1, 1], in practice within a few hundredths of 0, for a vocabulary has many directions; FDV in [-2, 2]; 0
where nothing separates.

Where it fails: most of the words are topics (criminal, deadly, explicit), so it reads what a prompt is about before it
reads a refusal, and refusals in other words or languages not at all. The whole set of layers hangs on one number, the
last layer's, and no harmless spread is asked for. A large common part of all logits makes every cosine small.

Departures: whole words only, with and without a space before them. The released code takes the first piece of a word
that the tokenizer splits, which is a "c" or "un" that stands for nothing (17 of the 20 words in one tokenizer of 49k
entries); ``interp.models.lexicon.whole_words(..., first_subtoken=True)`` does the same. It norms the last layer twice,
for the last hidden state of its library is behind the final norm already; ``double_norm`` repeats that. It counts
blocks from 0, so its layer i is layer i + 1 here, and leaves the embedding out, which is layer 0 here.
"""

import torch

from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from interp.axes import States
from interp.errors import UsageError
from interp.lens import Readout, vocabulary_cosine

WORDS = (
    *("Sorry", "sorry", "unfortunately", "unfortunate", "sadly", "explicit", "deadly", "crim", "criminal", "illegal"),
    *("dangerous", "harmful", "warning", "alarm", "caution", "shame", "conspiracy", "Subject", "contrary", "shouldn"),
)


def fdv(
    states: States,
    layers: tuple[int, ...],
    contrast: Contrast,
    readout: Readout,
    ids: tuple[int, ...],
    *,
    double_norm: bool = False,
) -> Curve:
    """The refusal discrepancy of every layer.

    Args:
        states: residual states at any position; for `Curve.above_last` and ``double_norm`` the last is the model's.
        layers: their layer numbers.
        contrast: the two kinds.
        readout: of the model that made the states.
        ids: of the words, such as ``whole_words(tokenizer, WORDS).ids``.
        double_norm: norm the last layer twice, as the released code does.

    Returns:
        A curve with null 0, and F of each kind alone.

    Raises:
        UsageError: when there is no id, or the readout ends in another width than it starts with and so has no second
            norm.
    """
    if not ids:
        raise UsageError("no id of a refusal word: this tokenizer splits them all; give other words, or first pieces.")
    tokens = torch.tensor(sorted(set(ids)))
    cosine = vocabulary_cosine(states, readout, tokens=tokens)
    if double_norm:
        last = readout.normed(states[:, -1])
        if last.shape[-1] != states.shape[-1]:
            raise UsageError("double_norm: this readout projects the normed state, which can not be normed again.")
        cosine[:, -1] = vocabulary_cosine(last, readout, tokens=tokens)
    name = "fdv_double_norm" if double_norm else "fdv"
    return Curve.of_scores(name, layers, cosine.double().numpy(), contrast, unit="cosine")
