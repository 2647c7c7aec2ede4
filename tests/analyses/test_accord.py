"""Whether consensus, patches and probe agree, on planted curves and patches."""

import numpy as np
import pytest

from analyses.accord import accord_sentences, accord_table, voices
from analyses.locators.causal_patch import PatchEffects
from analyses.tribunal import consensus
from tests.analyses.test_tribunal import HARMFUL, TOP, curve, effects, says


def heard(read_at, probe_at, patched):
    found = [says(curve(f"locator {k}", read_at, seed=k)) for k in range(3)]
    found += [] if probe_at is None else [says(curve("probe", probe_at, seed=9))]
    causal = [] if patched is None else [patched.sufficiency(), patched.necessity()]
    return voices(found, consensus(found), causal, patched is not None)


def test_three_that_agree_are_said_to():
    patched = effects(13)
    three = heard(12, 14, patched)
    table = accord_table(three).set_index(["first", "second"])
    assert set(table["agree"]) == {"yes"} and table.loc[("consensus", "patches"), "apart"] == 1
    (line,) = accord_sentences(three, {"t_post": patched})
    assert line.startswith("Consensus, patches and probe agree within 3 layers: consensus 12 [")


def test_one_that_reads_too_early_is_named_with_what_patches_move_there():
    patched = effects(13)
    three = heard(5, 13, patched)
    table = accord_table(three).set_index(["first", "second"])["agree"]
    assert table[("consensus", "patches")] == "no" and table[("probe", "patches")] == "yes"
    lines = accord_sentences(three, {"t_post": patched})
    assert "do not agree" in lines[0]
    assert lines[1].startswith("The consensus points 8 layers below the patches. At layer 5 patches move ")
    assert "known before it decides" in lines[1]
    assert "8 layers before the probe" in lines[2] and len(lines) == 3


def test_one_that_reads_too_late_and_what_lies_at_other_tokens():
    late = accord_sentences(heard(19, 13, effects(13)), {"t_post": effects(13)})
    assert "6 layers above" in late[1] and "made before that" in late[1]
    both = {"t_post": effects(13), "the template": effects(4)}
    early = accord_sentences(heard(13, 6, effects(13)), both)
    assert early[1].startswith("The probe points 7 layers below") and "other tokens of the template" in early[1]


@pytest.mark.parametrize(
    ("probe_at", "patched", "missing"), [(None, effects(13), "no probe"), (12, None, "no patches")]
)
def test_who_says_nothing_is_named(probe_at, patched, missing):
    (line,) = accord_sentences(heard(12, probe_at, patched), {})
    assert missing in line and "consensus 12" in line


def test_a_share_of_nothing_is_no_share():
    flat = np.zeros((len(HARMFUL), TOP))
    groups = tuple(f"g{i // 2}" for i in range(len(HARMFUL)))
    still = PatchEffects(tuple(range(1, TOP + 1)), HARMFUL, groups, np.zeros(len(HARMFUL)), flat, flat)
    lines = accord_sentences(heard(5, 13, effects(13)), {"t_post": still})
    assert "patches move nothing of what" in lines[1]
