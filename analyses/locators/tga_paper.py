"""The layer rule as the text-guided-alignment paper states it.

D_j = log(P_j / P_{j-1}) over the vocabulary, P_j the logit lens at layer j, last prompt token; the safety-activation
layer is the first j in 2..N at which arg-max D_j is a "sorry" token (Algorithm 1). Range: layers 2 to N, or never.

Where it fails: a ratio of two tiny probabilities can be the largest of all, so the arg-max is often a token nobody
would say; a refusal that does not begin with the word has none to find; and the paper never runs it on harmless
prompts. "Never" is kept as censored here, where the released analysis stores -1 and averages it in.
"""

import torch

from analyses.locators.firing import Firing, require_consecutive
from interp.lens import LensReading


def tga_paper(reading: LensReading, layers: tuple[int, ...], ids: tuple[int, ...]) -> Firing:
    """Fires where the token whose log-probability rose most over the last layer is one of ``ids``.

    Args:
        reading: the lens at the last prompt token.
        layers: the layer numbers of its layer axis, without gaps.
        ids: the "sorry" tokens; with none the rule can not fire.

    Returns:
        Where it fires, over the layers from 2 on.
    """
    require_consecutive(layers, "tga_paper")
    fires = (reading.rise[:, :, :1] == torch.tensor(ids)).any(-1).numpy()
    kept = [i for i, layer in enumerate(layers) if layer >= 2 and i > 0]
    return Firing("tga_paper", tuple(layers[i] for i in kept), fires[:, kept])
