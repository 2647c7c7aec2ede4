"""Transplants in tiny random models: the whole of another run is that run, a run into itself is nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analyses.cross_modal.questions import QUESTION
from analyses.cross_modal.transplant import (
    ALL,
    INSTRUCTION,
    LAST,
    NOISE,
    OWN,
    POSITIONS,
    SHUFFLED,
    SLOT,
    STRANGER,
    TWIN,
    Arm,
    Plan,
    Sources,
    Spans,
    groups,
    measure,
    of_rows,
    reach,
    transplanted,
)
from analyses.cross_modal.transplant_run import run_alone, spaced
from interp.causal import editing, encoded_prompts, laid, states_at
from interp.errors import ModelError, UsageError
from interp.models.hooks import HooksAdapter
from interp.prompts.prompt import user_prompt
from tests.sights import IMAGE_TOKENS, llava_processor, picture, tiny_llava
from tests.tiny import make_tokenizer, tiny_llama

LAYERS = (0, 1, 2, 3)
SAME_LENGTH = ("abc", "xyz", "qrs")
OTHERS = ("jkw", "vbn", "mkp")
RAGGED = ("a", "a long caption of some forty characters or more", "xyz")


def captions(words, question=QUESTION):
    return [user_prompt(f"{i} {word}", question, caption=word) for i, word in enumerate(words)]


@pytest.fixture(scope="module")
def model():
    return HooksAdapter.of_module(tiny_llama(), make_tokenizer())


@pytest.fixture(scope="module")
def seeing():
    return HooksAdapter.of_module(tiny_llava(), llava_processor())


def last_states(adapter, prompts, edits=()):
    """The states from which the answer is begun: what every measure of an effect reads."""
    with editing(adapter, edits, encoded_prompts(adapter, prompts)):
        return states_at(adapter, prompts, [adapter.n_layers], (-1,))[:, 0, 0]


def transplant(adapter, prompts, target, source, layer, position, rows=None):
    rows = np.arange(len(prompts)) if rows is None else np.array(rows)
    return last_states(adapter, prompts, (transplanted(target, source, rows, layer, position),))


@pytest.mark.parametrize("layer", LAYERS)
def test_everything_of_another_run_is_that_run(model, layer):
    here, there = captions(SAME_LENGTH), captions(OTHERS)
    target, source = (run_alone(model, prompts, LAYERS, 8) for prompts in (here, there))
    wanted, own = last_states(model, there), last_states(model, here)
    assert (wanted - own).abs().max() > 0.1
    found = transplant(model, here, target, source, layer, ALL)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    mixed = transplant(model, here, target, source, layer, ALL, rows=[2, 0, 1])
    torch.testing.assert_close(mixed, wanted[[2, 0, 1]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_run_put_into_itself_changes_nothing(model, position):
    prompts = captions(SAME_LENGTH)
    arm = run_alone(model, prompts, LAYERS, 8)
    for layer in LAYERS:
        found = transplant(model, prompts, arm, arm, layer, position)
        torch.testing.assert_close(found, last_states(model, prompts), atol=1e-5, rtol=1e-5)


def test_where_the_caption_lies_decides_at_the_bottom_and_the_last_token_at_the_top(model):
    here, there = captions(SAME_LENGTH), captions(OTHERS)
    target, source = (run_alone(model, prompts, (0, 3), 8) for prompts in (here, there))
    own, wanted = last_states(model, here), last_states(model, there)
    # The embeddings of two questions differ in the caption alone; behind block 3 of 4 the rest still reads much.
    torch.testing.assert_close(transplant(model, here, target, source, 0, SLOT), wanted, atol=1e-5, rtol=1e-5)
    for position in (INSTRUCTION, LAST):
        torch.testing.assert_close(transplant(model, here, target, source, 0, position), own, atol=1e-5, rtol=1e-5)
    assert (transplant(model, here, target, source, 3, LAST) - own).abs().max() > 0.1


def test_rows_of_any_length_are_patched_as_if_they_were_alone(model):
    here, there = captions(RAGGED), captions(("xy", "of", "a longer one"))
    target, source = (run_alone(model, prompts, LAYERS, 8) for prompts in (here, there))
    assert sorted(row for rows in groups(target.spans) for row in rows) == [0, 1, 2]
    edit = transplanted(target, source, np.arange(3), 2, SLOT)
    for rows in groups(target.spans):
        width = reach([target.spans[row] for row in rows])
        together = last_states(model, [here[row] for row in rows], (of_rows(edit, rows, width),))
        for row, state in zip(rows, together, strict=True):
            arm, other = (run_alone(model, [prompts[row]], LAYERS, 8) for prompts in (here, there))
            alone = transplant(model, [here[row]], arm, other, 2, SLOT)
            torch.testing.assert_close(state, alone[0], atol=1e-5, rtol=1e-5)
            assert (state - last_states(model, [here[row]])[0]).abs().max() > 1e-3


def test_a_prompt_shorter_than_another_s_slot_is_in_a_group_of_its_own():
    def span(before, slot, behind=5):
        at = tuple(range(before, before + slot))
        return Spans(before + slot + behind, at, (before + slot + 1, before + slot + 2))

    spans = [span(2, 30), span(2, 1), span(2, 2), span(40, 1)]
    found = groups(spans)
    assert sorted(row for rows in found for row in rows) == [0, 1, 2, 3]
    for rows in found:
        assert reach([spans[row] for row in rows]) <= min(spans[row].length for row in rows)
    assert len(found) == 2


@given(st.integers(1, 30), st.integers(1, 30))
def test_laying_keeps_the_order_and_invents_nothing(tokens, places):
    states = torch.arange(tokens, dtype=torch.float32)[:, None]
    found = laid(states, places)[:, 0]
    assert len(found) == places and (found.diff() >= 0).all() and set(found.tolist()) <= set(range(tokens))
    if places == tokens:
        assert torch.equal(found, states[:, 0])
    if places > tokens:
        assert set(found.tolist()) == set(range(tokens))


def sources(model, units=("a", "b", "c")):
    here, there, twins = captions(SAME_LENGTH), captions(OTHERS), captions(("zqx", "kjw", "vxq"))
    arms = [run_alone(model, prompts, LAYERS, 8) for prompts in (here, there, twins)]
    return here, Sources(*arms, units=units)


def test_placebos_are_what_they_are_called(model):
    _, put_in = sources(model)
    plan = Plan(LAYERS, placebo_layers=(1, 2))
    real, twin, stranger, shuffled, noise = (
        put_in.edit(name, 2, SLOT, plan) for name in (OWN, TWIN, STRANGER, SHUFFLED, NOISE)
    )
    own = put_in.target.states[:, 2]
    slot = [i for i in range(own.shape[1]) if not torch.equal(real.values[:, i], own[:, i])]
    outside = [i for i in range(own.shape[1]) if i not in slot]
    assert slot
    for edit in (real, twin, stranger, shuffled, noise):
        torch.testing.assert_close(edit.values[:, outside], own[:, outside])
    torch.testing.assert_close(twin.values[:, slot], put_in.twins.states[:, 2][:, slot])
    moved, pushed = ((edit.values - own).norm(dim=-1) for edit in (real, noise))
    torch.testing.assert_close(moved, pushed, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shuffled.values[:, slot].norm(dim=-1), real.values[:, slot].norm(dim=-1))
    other = put_in.own.states[:, plan.shuffled_layers[2]][:, slot]
    assert torch.nn.functional.cosine_similarity(shuffled.values[:, slot], other, dim=-1).min() > 0.9999
    strangers = put_in.strangers(0)
    assert (strangers != np.arange(3)).all()
    torch.testing.assert_close(stranger.values[:, slot], put_in.own.states[torch.from_numpy(strangers), 2][:, slot])


def test_a_shuffled_layer_is_another_one_and_each_stands_in_once():
    layers = Plan((0, 3, 5, 9), seed=4).shuffled_layers
    assert set(layers) == set(layers.values()) == {0, 3, 5, 9}
    assert all(layer != other for layer, other in layers.items())


def test_strangers_are_of_another_concept(model):
    _, put_in = sources(model, units=("a", "a", "b"))
    assert put_in.strangers(0).tolist() == [2, 2, put_in.strangers(0)[2]]
    with pytest.raises(UsageError, match="one concept"):
        sources(model, units=("a",) * 3)[1].strangers(0)


def test_the_map_is_measured_where_it_is_planned(model):
    here, put_in = sources(model)
    plan = Plan(LAYERS, placebo_layers=(1, 3))
    steps = []
    found = measure(
        lambda edit: last_states(model, here, (edit,))[:, 0].double().numpy(), put_in, plan,
        progress=lambda: steps.append(1),
    )  # fmt: skip
    assert found.shape == (len(plan.sources), len(POSITIONS), 3, len(LAYERS))
    assert not np.isnan(found[0]).any() and not np.isnan(found[1:, :, :, [1, 3]]).any()
    assert np.isnan(found[1:, :, :, [0, 2]]).all()
    assert len(steps) == len(POSITIONS) * (4 + 4 * 2)
    wanted = last_states(model, captions(OTHERS))[:, 0].double().numpy()
    np.testing.assert_allclose(found[0, POSITIONS.index(ALL)], np.repeat(wanted[:, None], 4, 1), atol=1e-4)


def test_another_question_is_refused(model):
    target, source = (
        run_alone(model, prompts, LAYERS, 8) for prompts in (captions(OTHERS), captions(OTHERS, "Hm?"))
    )  # fmt: skip
    with pytest.raises(ModelError, match="same question"):
        transplanted(target, source, np.arange(3), 1, ALL)
    with pytest.raises(UsageError, match="slot"):
        run_alone(model, [user_prompt("x", QUESTION)], LAYERS, 8)
    with pytest.raises(UsageError, match="reach back"):
        Arm(target.spans, target.states[:, :, 1:], LAYERS)


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_a_picture_that_gets_all_states_of_a_caption_as_long_answers_as_the_caption(seeing, tmp_path, layer):
    there = captions(("z" * IMAGE_TOKENS, "q" * IMAGE_TOKENS))
    here = [
        user_prompt(f"p{i}", QUESTION, image=picture(tmp_path / f"{i}.png", seed=i)) for i in range(len(there))
    ]  # fmt: skip
    target, source = (run_alone(seeing, prompts, LAYERS, 8) for prompts in (here, there))
    assert {len(span.slot) for span in (*target.spans, *source.spans)} == {IMAGE_TOKENS}
    found = transplant(seeing, here, target, source, layer, ALL)
    torch.testing.assert_close(found, last_states(seeing, there), atol=1e-4, rtol=1e-4)
    back = transplant(seeing, there, source, target, layer, ALL)
    torch.testing.assert_close(back, last_states(seeing, here), atol=1e-4, rtol=1e-4)


def test_the_slot_alone_is_what_changes_between_a_picture_and_a_caption(seeing, tmp_path):
    here = [user_prompt(f"p{i}", QUESTION, image=picture(tmp_path / f"{i}.png", seed=i)) for i in range(3)]
    target, source = (run_alone(seeing, prompts, LAYERS, 8) for prompts in (here, captions(RAGGED)))
    edit = transplanted(target, source, np.arange(3), 1, SLOT)
    changed = (edit.values - target.states[:, 1]).abs().sum(-1) > 0
    assert (changed.sum(1) == IMAGE_TOKENS).all() and not changed[:, IMAGE_TOKENS:].any()
    assert replace(target, layers=LAYERS).at[-1] == -1


def test_layers_are_spaced_evenly_from_first_to_last():
    assert spaced(range(30), 8) == (0, 4, 8, 12, 17, 21, 25, 29)
    assert spaced(range(3), 8) == (0, 1, 2) and spaced((0, 4, 8), 2) == (0, 8)
