import pandas as pd

from interp.tables import onset_summary


def test_onset_summary_counts_never_as_late_and_not_as_minus_one():
    onsets = pd.DataFrame(
        {
            "locator": ["rule"] * 6,
            "label": ["harmful"] * 3 + ["harmless"] * 3,
            "onset": pd.array([4, 5, pd.NA, pd.NA, pd.NA, 2], dtype="Int64"),
        }
    )
    summary = onset_summary(onsets).set_index("prompts")
    assert summary.loc["harmful", "fired"] == "2 of 3"
    assert summary.loc["harmful", "median first layer"] == "5"
    assert summary.loc["harmless", "median first layer"] == "never"
    assert summary.loc["harmful", "share [95 %]"].startswith("67% [")
