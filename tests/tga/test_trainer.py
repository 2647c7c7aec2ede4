import math
import random
from dataclasses import replace

import pandas as pd
import pytest
import torch
from transformers import AutoModelForImageTextToText

from interp.errors import Interrupted, ModelMismatch, TrainingError, UsageError
from interp.models.identity import TRAINED_LORA, TRAINED_PROJECTOR
from interp.models.lora import Lora
from interp.models.projected import projector_of
from interp.models.projector_file import load_projector, read_projector
from interp.tga import training
from interp.tga.recipe import Recipe
from interp.tga.trainer import CHECKPOINTS, train
from interp.tga.validation import Validation
from interp.tga.variants import VARIANTS, variant
from tests.tga.seeing import tiny_llava, tiny_training

RECIPE = Recipe(
    variant=variant("paper", layers=(1, 2, 3)), steps=12, batch=8, micro_batch=8, learning_rate=1e-2,
    audit_every=4, evaluate_every=4, checkpoint_every=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_training(tmp_path_factory.mktemp("data"))


def after(data, recipe, out, **options):
    """The projector's tensors after a training, and what the training returned."""
    model = tiny_llava()
    found = train(model, data, recipe, out, **options)
    return {name: t.clone() for name, t in projector_of(model).state_dict().items()}, found


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def numbers(frame):
    return frame.drop(columns="seconds", errors="ignore")


def test_training_lowers_both_losses_and_changes_the_projector_alone(data, tmp_path):
    model, before = tiny_llava(), tiny_llava().state_dict()
    found = train(model, data, replace(RECIPE, steps=40, checkpoint_every=40), tmp_path)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all("multi_modal_projector" in name for name in changed)
    steps = found.steps_table
    assert steps["language"].iloc[-1] < 0.8 * steps["language"].iloc[1]
    assert steps["guide"].iloc[-1] < steps["guide"].iloc[1]
    assert steps["validation"].iloc[-1] < steps["validation"].iloc[0]
    audits = steps.dropna(subset="guide_norm")
    assert list(audits["step"]) == list(range(1, 41, 4)) and (audits["guide_share"].between(0, 1)).all()
    assert set(found.layers_table["layer"]) == {0, 1, 2, 3, 4} and (found.layers_table["n"] == 6).all()


def test_the_guide_alone_brings_pictures_nearer_to_their_captions(tmp_path):
    data = tiny_training(tmp_path / "data", captioned=False)
    found = after(data, replace(RECIPE, steps=50, checkpoint_every=50), tmp_path)[1]
    layers = found.layers_table[found.layers_table["layer"].isin([1, 2, 3])]
    first, last = (layers[layers["step"] == step]["image_caption"].mean() for step in (0, 50))
    assert last > first + 0.2, "on pictures that were not trained on"
    assert (found.steps_table["language"].iloc[1:] == 0).all()


def test_released_updates_what_no_guide_updates_to_the_bit(data, tmp_path):
    released, found = after(data, replace(RECIPE, variant=variant("released", layers=(1, 2, 3))), tmp_path / "r")
    without, _ = after(data, replace(RECIPE, variant=VARIANTS["no-guide"]), tmp_path / "n")
    guided, _ = after(data, RECIPE, tmp_path / "p")
    assert same(released, without) and not same(guided, without)
    audits = found.steps_table.dropna(subset="guide_norm")
    assert (audits["guide_norm"] == 0).all() and (audits["language_norm"] > 0).all()
    assert (found.steps_table["guide"].iloc[1:] > 0).all(), "the loss is there, and trains nothing"


def test_with_the_retrieved_text_in_the_prompt_released_is_the_retrieved_text_alone(tmp_path):
    data = tiny_training(tmp_path / "data", retrieved_in_prompt=True)
    one = variant("released", layers=(1, 2), retrieved_in_prompt=True)
    released, _ = after(data, replace(RECIPE, steps=5, variant=one), tmp_path / "r")
    text_only, _ = after(data, replace(RECIPE, steps=5, variant=VARIANTS["retrieved-text-only"]), tmp_path / "t")
    assert same(released, text_only)


@pytest.mark.parametrize("name", ["paper", "centred"])
def test_a_killed_training_goes_on_to_the_same_bits(data, tmp_path, name):
    recipe = replace(RECIPE, variant=variant(name, layers=(1, 2, 3)), patience=5)
    straight, whole = after(data, recipe, tmp_path / "straight")
    rng = random.Random(name)

    class Killed(BaseException):
        pass

    kills = sorted(rng.sample(range(2, 12), 2))

    def kill(done, total):
        if kills and done >= kills[0]:
            kills.pop(0)
            raise Killed

    torch.manual_seed(99)
    for _ in range(2):
        with pytest.raises(Killed):
            after(data, recipe, tmp_path / "killed", progress=kill)
    again, found = after(data, recipe, tmp_path / "killed")
    assert same(straight, again)
    pd.testing.assert_frame_equal(numbers(found.steps_table), numbers(whole.steps_table))
    pd.testing.assert_frame_equal(found.layers_table, whole.layers_table)


def test_a_stop_keeps_what_was_done(data, tmp_path):
    asked = iter([False] * 5 + [True] * 9)
    with pytest.raises(Interrupted, match="step 5"):
        after(data, RECIPE, tmp_path / "out", should_stop=lambda: next(asked))
    seen = []
    resumed, _ = after(data, RECIPE, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(k, 12) for k in range(6, 13)]
    assert same(resumed, after(data, RECIPE, tmp_path / "straight")[0])


def test_checkpoints_of_another_training_or_damaged_ones_are_refused(data, tmp_path):
    after(data, RECIPE, tmp_path)
    with pytest.raises(ModelMismatch, match="learning_rate"):
        after(data, replace(RECIPE, learning_rate=1e-3), tmp_path)
    with pytest.raises(ModelMismatch, match="samples"):
        after(tiny_training(tmp_path / "other", seed=1), RECIPE, tmp_path)
    with pytest.raises(ModelMismatch, match=r"data\.arm"):
        after(replace(data, arm="left-out"), RECIPE, tmp_path)
    with pytest.raises(ModelMismatch, match=r"data\.index"):
        after(replace(data, about={"index": "another"}), RECIPE, tmp_path)
    newest = sorted((tmp_path / CHECKPOINTS).iterdir())[-1] / "state.safetensors"
    data_there = newest.read_bytes()
    newest.chmod(0o644)
    newest.write_bytes(data_there[:-1] + bytes([data_there[-1] ^ 1]))
    with pytest.raises(TrainingError, match="damaged"):
        after(data, RECIPE, tmp_path)


def test_accumulated_gradients_are_those_of_the_whole_batch(data, tmp_path):
    for variant_name in ("paper", "centred"):
        recipe = replace(RECIPE, steps=3, variant=variant(variant_name, layers=(1, 2, 3)))
        whole, found = after(data, recipe, tmp_path / variant_name)
        parts, in_parts = after(data, replace(recipe, micro_batch=3), tmp_path / f"{variant_name}-parts")
        for name in whole:
            torch.testing.assert_close(parts[name], whole[name], atol=1e-4, rtol=1e-4)
        audits = [f.steps_table.dropna(subset="guide_norm").drop(columns="seconds") for f in (found, in_parts)]
        pd.testing.assert_frame_equal(*audits, rtol=1e-3)


def test_a_batch_whose_first_part_guides_nothing_is_audited_as_a_whole(data, tmp_path):
    some = tuple(replace(sample, guided=i % 2 == 0, captioned=i % 2 != 0) for i, sample in enumerate(data.train))
    mixed = replace(data, train=some)
    whole, in_parts = (
        after(mixed, replace(RECIPE, steps=4, micro_batch=size, audit_every=1), tmp_path / str(size))[1].steps_table
        for size in (8, 1)
    )
    assert 0 < whole["guide_share"].iloc[1] < 1
    torch.testing.assert_close(
        *(torch.tensor(t["guide_share"].iloc[1:].tolist()) for t in (whole, in_parts)), rtol=1e-3, atol=1e-4
    )
    assert in_parts["gradient_cosine"].iloc[1:].notna().all()


def test_a_gradient_that_is_no_number_stops_the_training_before_the_update(data, tmp_path, monkeypatch):
    real, calls = training.losses_of, []

    def overflowing(model, data, samples, *args, **options):
        calls.append(1)
        found = real(model, data, samples, *args, **options)
        return replace(found, language=found.language * (math.nan if len(calls) > 5 else 1))

    monkeypatch.setattr(training, "losses_of", overflowing)
    model, recipe = tiny_llava(), replace(RECIPE, audit_every=50)
    with pytest.raises(TrainingError, match=r"step 6: .*nan.*learning rate"):
        train(model, data, recipe, tmp_path)
    assert all(t.isfinite().all() for t in projector_of(model).state_dict().values())
    assert [path.name for path in (tmp_path / CHECKPOINTS).iterdir()] == ["0000003"], "the last good one is kept"
    assert not (tmp_path / TRAINED_PROJECTOR).exists()


def test_what_would_train_nothing_or_wait_for_nothing_is_refused(data, tmp_path):
    uncaptioned = replace(data, train=tuple(replace(s, captioned=False) for s in data.train))
    with pytest.raises(UsageError, match="nothing would be trained"):
        after(uncaptioned, replace(RECIPE, variant=VARIANTS["no-guide"]), tmp_path)
    with pytest.raises(UsageError, match="validation"):
        after(replace(data, validation=()), replace(RECIPE, patience=2), tmp_path)


def test_it_refuses_to_start_when_the_guide_trains_nothing(data, tmp_path, monkeypatch):
    import interp.tga.losses as losses

    real = losses.guide_loss

    def detached(*args, **options):
        found = real(*args, **options)
        return replace(found, loss=found.loss.detach())

    monkeypatch.setattr(losses, "guide_loss", detached)
    before = projector_of(tiny_llava()).state_dict()
    model = tiny_llava()
    with pytest.raises(TrainingError, match="zero"):
        train(model, data, RECIPE, tmp_path)
    assert same(projector_of(model).state_dict(), before), "not one update was made"
    after(data, replace(RECIPE, steps=2, variant=variant("released", layers=(1, 2))), tmp_path / "released")


def test_early_stop_keeps_the_best_projector(data, tmp_path, monkeypatch):
    losses = iter([5.0, 4.0, 3.0, 3.5, 3.2, 5.0, 4.0, 3.0])
    monkeypatch.setattr(training, "measure", lambda *_: Validation(next(losses), []))
    recipe = replace(RECIPE, evaluate_every=2, patience=2)
    kept, found = after(data, recipe, tmp_path / "kept")
    assert found.stopped_early and found.steps == 8 and found.kept_step == 4
    about = read_projector(tmp_path / "kept" / TRAINED_PROJECTOR)[0]["about"]
    assert (about["steps"], about["made_steps"], about["kept_step"]) == (12, 8, 4), "planned, made, kept"
    assert list(found.steps_table.dropna(subset="validation")["validation"]) == [5.0, 4.0, 3.0, 3.5, 3.2]
    model, asked = tiny_llava(), iter([False] * 4 + [True])
    with pytest.raises(Interrupted):
        train(model, data, replace(recipe, patience=0), tmp_path / "upto", should_stop=lambda: next(asked))
    assert same(kept, projector_of(model).state_dict()), "that of step 4"


def test_in_16_bits_it_trains_too_and_resumes_to_the_bit(data, tmp_path):
    recipe = replace(RECIPE, steps=6)
    model = tiny_llava(dtype=torch.bfloat16)
    train(model, data, recipe, tmp_path / "one")
    assert projector_of(model).linear_1.weight.dtype == torch.bfloat16
    again = tiny_llava(dtype=torch.bfloat16)
    asked = iter([False] * 4 + [True] * 9)
    with pytest.raises(Interrupted):
        train(again, data, recipe, tmp_path / "two", should_stop=lambda: next(asked))
    again = tiny_llava(dtype=torch.bfloat16)
    train(again, data, recipe, tmp_path / "two")
    assert same(projector_of(model).state_dict(), projector_of(again).state_dict())
    with pytest.raises(ModelMismatch, match=r"model\.dtype"):
        after(data, recipe, tmp_path / "one")


def test_the_trained_projector_loads_back_into_transformers(data, tmp_path):
    trained, found = after(data, replace(RECIPE, steps=3), tmp_path / "out")
    tiny_llava().save_pretrained(tmp_path / "model")
    fresh = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    record = load_projector(fresh, tmp_path / "out" / TRAINED_PROJECTOR)
    assert same(projector_of(fresh).state_dict(), trained)
    assert record["variant"] == "paper" and record["training"] == found.digest
    assert record["about"]["recipe"]["learning_rate"] == 1e-2
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out" / "steps.parquet"), found.steps_table)


def test_lora_is_trained_beside_the_projector(data, tmp_path):
    recipe = replace(RECIPE, steps=4, lora=Lora(rank=2))
    after(data, recipe, tmp_path / "one")
    assert (tmp_path / "one" / TRAINED_LORA / "adapter_model.safetensors").is_file()
    asked = iter([False] * 3 + [True] * 9)
    with pytest.raises(Interrupted):
        after(data, recipe, tmp_path / "two", should_stop=lambda: next(asked))
    after(data, recipe, tmp_path / "two")
    one, two = ((tmp_path / k / TRAINED_LORA / "adapter_model.safetensors").read_bytes() for k in ("one", "two"))
    assert one == two
    # The projector belongs to the model before LoRA touched it.
    load_projector(tiny_llava(), tmp_path / "one" / TRAINED_PROJECTOR)


def test_the_guide_says_what_states_it_lacks(data, tmp_path):
    with pytest.raises(UsageError, match="harvest"):
        after(replace(data, texts=None), RECIPE, tmp_path)
    with pytest.raises(UsageError, match="within 0 to 4"):
        after(data, replace(RECIPE, variant=VARIANTS["released"]), tmp_path)
    after(replace(data, texts=None), replace(RECIPE, steps=2, variant=VARIANTS["no-guide"]), tmp_path / "none")


def test_numbers_of_every_step_go_to_the_log(data, tmp_path):
    seen = []
    _, found = after(data, replace(RECIPE, steps=4), tmp_path, log=seen.append)
    assert [row["step"] for row in seen] == [1, 2, 3, 4]
    assert list(found.steps_table["language"].iloc[1:]) == [row["language"] for row in seen]
