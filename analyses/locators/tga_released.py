"""The layer rule as the code released with the text-guided-alignment paper computes it.

The first layer j at which a watched token ("sorry" or a capital "I") is among the five largest of P_j - P_{j-1}, P_j
the logit lens at the last prompt token. Range: layers 2 to N, or never.

Departures: the released code hard-codes two ids of Mistral's vocabulary, here every entry that reads so in the model's
own is taken; it normalises the last layer twice, here once; it stores "never" as -1, here it is censored.

Where it fails: "I" opens many answers that are not refusals, so it fires on harmless prompts alike (it fired on 60 of
60 harmful and 60 of 60 harmless prompts of a small chat model).
"""

import torch

from analyses.locators.firing import Firing, require_consecutive
from interp.errors import UsageError
from interp.lens import LensReading

TOP = 5


def tga_released(reading: LensReading, layers: tuple[int, ...], ids: tuple[int, ...]) -> Firing:
    """Fires where one of ``ids`` is among the five tokens whose probability rose most over the last layer.

    Args:
        reading: the lens at the last prompt token, with k >= 5.
        layers: the layer numbers of its layer axis, without gaps.
        ids: the watched tokens; with none the rule can not fire.

    Returns:
        Where it fires, over the layers from 2 on.

    Raises:
        UsageError: when the reading keeps fewer than five tokens.
    """
    require_consecutive(layers, "tga_released")
    if reading.gain.shape[-1] < TOP:
        raise UsageError(f"tga_released needs the {TOP} largest gains; this reading keeps {reading.gain.shape[-1]}.")
    fires = (reading.gain[:, :, :TOP, None] == torch.tensor(ids)).any(-1).any(-1).numpy()
    kept = [i for i, layer in enumerate(layers) if layer >= 2 and i > 0]
    return Firing("tga_released", tuple(layers[i] for i in kept), fires[:, kept])
