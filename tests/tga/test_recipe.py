import math
import sys
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.cache.identity import canonical_json
from interp.errors import UsageError
from interp.models.lora import Lora
from interp.tga.recipe import Recipe
from interp.tga.samples import order_of
from interp.tga.tracking import tracker
from interp.tga.variants import RELEASED, variant


def test_the_learning_rate_rises_and_falls_along_a_cosine():
    recipe = Recipe(learning_rate=2.0, warmup=0.1)
    rates = [recipe.rate(step, 100) for step in range(100)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10 * 2)
    assert max(rates) == rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0, abs=0.01) and rates[99] < 0.001
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert Recipe(warmup=0.0).rate(0, 1) == Recipe().learning_rate


def test_steps_are_given_or_counted_from_epochs():
    assert Recipe(batch=8, epochs=1.5).total_steps(100) == 19
    assert Recipe(batch=8, steps=7).total_steps(100) == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("batch", "micro_batch", "checkpoint_every") for value in (0, -3)),
        *((name, value) for name in ("steps", "seed", "evaluate_every", "patience") for value in (-1, -7)),
        *((name, value) for name in ("learning_rate", "clip") for value in (0.0, -1.0, math.nan, math.inf, 1e38)),
        *(("epochs", value) for value in (-1.0, math.nan, math.inf)),
        *(("weight_decay", value) for value in (-1.0, math.nan)),
        ("warmup", 1.0),
    ],
)
def test_a_number_that_can_not_be_meant_is_refused_by_its_name(name, value):
    with pytest.raises(UsageError, match=f"{name} is"):
        Recipe(**{name: value})


def test_what_trains_nothing_is_refused():
    with pytest.raises(UsageError, match="train nothing"):
        Recipe(epochs=0.0)
    assert Recipe(epochs=0.0, steps=3).total_steps(9) == 3
    with pytest.raises(UsageError, match="--evaluate-every"):
        Recipe(patience=1, evaluate_every=0)


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"weight": math.nan}, {"contrast_weight": math.inf}])
def test_a_weight_that_drives_pictures_away_from_their_captions_is_refused(wrong):
    with pytest.raises(UsageError, match="0 or more"):
        variant("paper", **wrong)


@pytest.mark.parametrize("ignored", [{"weight": 3.0}, {"layers": (1, 2)}])
def test_what_a_variant_without_a_guide_would_ignore_is_refused(ignored):
    with pytest.raises(UsageError, match="no guide"):
        variant("no-guide", **ignored)


def test_every_choice_is_in_the_record():
    one, other = Recipe(), Recipe(variant=RELEASED, lora=Lora(rank=2))
    canonical_json(other.record())
    assert other.record()["variant.layers"] == list(range(10, 19)) and other.record()["lora"]["rank"] == 2
    assert one.record().keys() == other.record().keys()


@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 5))
def test_every_picture_is_seen_once_in_every_epoch(batch, pictures, seed):
    steps = pictures * 2
    seen = [row for step in range(steps) for row in order_of(step, batch, pictures, seed)]
    for start in range(0, len(seen) - pictures + 1, pictures):
        assert sorted(seen[start : start + pictures]) == list(range(pictures))
    last = order_of(steps - 1, batch, pictures, seed)
    assert last == seen[(steps - 1) * batch :], "a step's order needs no other step"


def test_a_tracker_is_started_on_request_alone(monkeypatch):
    calls = []
    module = ModuleType("trackio")
    module.init = lambda **known: calls.append(known)
    module.log = calls.append
    monkeypatch.setitem(sys.modules, "trackio", module)
    tracker("trackio", "tga", {"steps": 3})({"language": 1.0})
    assert calls == [{"project": "tga", "config": {"steps": 3}}, {"language": 1.0}]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match="pip install wandb"):
        tracker("wandb", "tga", {})
    with pytest.raises(UsageError, match="trackio, wandb"):
        tracker("tensorboard", "tga", {})
