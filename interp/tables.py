"""Tidy tables made smaller: what a person reads first."""

import pandas as pd

from interp.stats import censored_median, wilson


def onset_summary(onsets: pd.DataFrame) -> pd.DataFrame:
    """One row per rule and kind of prompt.

    Args:
        onsets: one row per rule and prompt, with columns locator, label, onset (missing where it never fires).

    Returns:
        locator, prompts (their label), fired ("12 of 144"), share with its Wilson interval, and the median first
        layer, where "never" counts as later than every layer.
    """
    rows = []
    for (locator, label), chosen in onsets.groupby(["locator", "label"], sort=False):
        layers = chosen["onset"].astype("Float64").to_numpy(dtype="float64", na_value=float("inf"))
        fired = int((layers < float("inf")).sum())
        share = wilson(fired, len(layers))
        median = censored_median(layers)
        rows.append(
            {
                "locator": locator,
                "prompts": label,
                "fired": f"{fired} of {len(layers)}",
                "share [95 %]": f"{share.value:.0%} [{share.lo:.0%}, {share.hi:.0%}]",
                "median first layer": "never" if median == float("inf") else f"{median:.0f}",
            }
        )
    return pd.DataFrame(rows)
