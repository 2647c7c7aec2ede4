from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from interp.cache import ActivationCache, Capture, expected_seconds, harvest_into, plan_harvest, run_harvest
from interp.cache.identity import run_key
from interp.errors import CacheError, Interrupted, NonFinite, UsageError
from interp.models.hooks import HooksAdapter
from tests.cache.samples import Altered, planned, shard_digests, some_prompts
from tests.tiny import make_tokenizer, tiny_llama

EVERYWHERE = ("t_inst", "all_post")


def must_not_run(*_):
    raise AssertionError("the model ran")


def without_padding(model, ids):
    """States of one prompt alone, (layer, token, d_model), by another path than the adapter's."""
    last = []
    handle = model.model.layers[-1].register_forward_hook(lambda m, i, out: last.append(out))
    with torch.no_grad():
        out = model(torch.tensor([ids]), output_hidden_states=True)
    handle.remove()
    # The last of hidden_states is behind the final norm.
    before_norm = last[0] if isinstance(last[0], torch.Tensor) else last[0][0]
    return torch.stack([*out.hidden_states[:-1], before_norm])[:, 0]


def residuals(folder):
    cache = ActivationCache.open(folder)
    return {p: cache.residuals(position=p) for p in cache.positions}


@pytest.mark.parametrize("share_prefix", [True, False])
def test_states_are_those_of_every_prompt_alone(tiny_adapter, tmp_path, share_prefix):
    harvest = planned(tiny_adapter, n=14, positions=EVERYWHERE, share_prefix=share_prefix)
    assert (harvest.plan.shared > 0) == share_prefix
    states = residuals(run_harvest(harvest, tmp_path))
    assert set(states) == set(harvest.positions) >= {"t_inst", "post_0", "post_1", "t_post"}
    for row, encoded in enumerate(harvest.encoded):
        alone = without_padding(tiny_adapter.model, encoded.ids)
        for position, at in encoded.at.items():
            torch.testing.assert_close(states[position][row], alone[:, at], atol=1e-5, rtol=1e-5)


def test_sharing_the_prefix_changes_nothing_beyond_rounding(tiny_adapter, tmp_path):
    on, off = (planned(tiny_adapter, share_prefix=share) for share in (True, False))
    assert on.tokens < off.tokens
    shared, plain = residuals(run_harvest(on, tmp_path)), residuals(run_harvest(off, tmp_path))
    for position in shared:
        torch.testing.assert_close(shared[position], plain[position], atol=1e-5, rtol=1e-5)


def test_some_layers_are_those_of_a_run_of_all(tiny_adapter, tmp_path):
    whole = ActivationCache.open(run_harvest(planned(tiny_adapter), tmp_path))
    some = ActivationCache.open(run_harvest(planned(tiny_adapter, layers=(0, 2)), tmp_path))
    assert some.layers == (0, 2)
    assert torch.equal(some.residuals(position="t_inst"), whole.residuals(position="t_inst")[:, [0, 2]])


def test_nothing_runs_above_the_highest_layer(tiny_adapter, tmp_path):
    ran = []
    for i, block in enumerate(tiny_adapter.model.model.layers, start=1):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    run_harvest(planned(tiny_adapter, layers=(1, 2), share_prefix=False), tmp_path)
    assert set(ran) == {1, 2}


def test_storage_in_bf16_is_the_rounded_fp32(tiny_adapter, tmp_path):
    fp32 = ActivationCache.open(run_harvest(planned(tiny_adapter), tmp_path))
    bf16 = ActivationCache.open(run_harvest(planned(tiny_adapter, storage="bf16"), tmp_path))
    exact, stored = (c.residuals(position="t_post", layer=3) for c in (fp32, bf16))
    assert torch.equal(stored, exact.bfloat16().float())
    assert next(bf16.shards(position="t_post"))[1].dtype == torch.bfloat16


def test_a_model_in_bf16_is_stored_in_bf16(tmp_path):
    adapter = HooksAdapter.of_module(tiny_llama().bfloat16(), make_tokenizer())
    cache = ActivationCache.open(run_harvest(planned(adapter), tmp_path))
    assert cache.identity["capture.storage"] == "bf16"
    assert cache.residuals(position="t_inst").isfinite().all()


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_parts_together_are_the_whole_bit_for_bit(tiny_adapter, tmp_path, n):
    harvest = planned(tiny_adapter, n=18)
    whole = run_harvest(harvest, tmp_path / "whole")
    for i in range(n):
        folder = run_harvest(harvest, tmp_path / "parts", part=(i, n))
    assert shard_digests(folder) == shard_digests(whole)
    assert len(shard_digests(whole)) == len(harvest.plan.shards) == 5


@pytest.mark.parametrize("part", [(1, 1), (-1, 2), (0, 0)])
def test_a_part_that_does_not_exist_is_refused(fake, tmp_path, part):
    with pytest.raises(UsageError, match="counts from 0"):
        run_harvest(planned(fake), tmp_path, part=part)


def test_a_second_run_computes_nothing(fake, tmp_path):
    first = run_harvest(planned(fake), tmp_path)
    before = {p: p.stat().st_mtime_ns for p in first.rglob("*")}
    assert run_harvest(planned(Altered(fake, must_not_run)), tmp_path) == first
    assert {p: p.stat().st_mtime_ns for p in first.rglob("*")} == before


def test_progress_counts_tokens_up_to_all_of_them(fake, tmp_path):
    harvest, seen = planned(fake), []
    run_harvest(harvest, tmp_path, progress=lambda *now: seen.append(now))
    assert seen[-1] == (harvest.tokens, harvest.tokens)
    assert len(seen) == len(harvest.plan.shards)
    assert all(a < b for (a, _), (b, _) in pairwise(seen))
    again = []
    run_harvest(harvest, tmp_path, progress=lambda *now: again.append(now))
    assert again == seen


def test_a_stop_keeps_what_is_finished_and_the_next_run_goes_on(tiny_adapter, tmp_path):
    harvest = planned(tiny_adapter)
    whole = shard_digests(run_harvest(harvest, tmp_path / "whole"))
    answers = iter([False, False, True])
    with pytest.raises(Interrupted, match="the same command goes on") as stopped:
        run_harvest(harvest, tmp_path / "stopped", should_stop=lambda: next(answers))
    assert stopped.value.exit_code == 130
    folder = tmp_path / "stopped" / run_key(harvest.identity)
    assert len(shard_digests(folder)) == 2
    with pytest.raises(CacheError, match=r"not finished, shard 2 of 3.*run the same harvest again"):
        ActivationCache.open(folder)
    assert shard_digests(run_harvest(harvest, tmp_path / "stopped")) == whole


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_state_that_is_not_finite_stops_the_run_with_prompt_and_layer(fake, tmp_path, value):
    harvest = planned(fake)
    bad = harvest.prompts.prompts[harvest.plan.shards[1][2]].id

    def poison(states, batch, layers):
        if torch.equal(batch.ids, harvest.batch(1).ids):
            states[2, 3, 1, 5] = value
        return states

    poisoned = planned(Altered(fake, poison))
    with pytest.raises(NonFinite, match=rf"prompt '{bad}', layer 3: .*--on-nonfinite keep"):
        run_harvest(poisoned, tmp_path / "error")
    kept = ActivationCache.open(run_harvest(poisoned, tmp_path / "keep", on_nonfinite="keep"))
    assert kept.nonfinite == 1
    assert not kept.residuals(position=kept.positions[1], layer=3).isfinite().all()


def test_overflow_in_the_storage_dtype_is_noticed(fake, tmp_path):
    huge = Altered(fake, lambda states, *_: states * 0 + 3.4e38)
    assert run_harvest(planned(huge), tmp_path)
    with pytest.raises(NonFinite):
        run_harvest(planned(huge, storage="bf16"), tmp_path)


def test_an_unknown_word_for_nonfinite_is_refused(fake, tmp_path, monkeypatch):
    call = getattr(run_harvest, "__wrapped__", run_harvest)  # the annotation would refuse it too
    with pytest.raises(UsageError, match="'skip' is not one of"):
        call(planned(fake), tmp_path, on_nonfinite="skip")


def test_shards_hold_one_tensor_per_position(fake, tmp_path):
    folder = run_harvest(planned(fake), tmp_path)
    tensors = load_file(next(folder.glob("shards/*.safetensors")))
    assert {k: tuple(t.shape) for k, t in tensors.items()} == {
        "resid_post.t_inst": (4, 4, 8),
        "resid_post.t_post": (4, 4, 8),
    }


def test_size_and_time_are_known_before(fake, tmp_path):
    harvest = planned(fake)
    assert harvest.bytes == sum(
        t.numel() * t.element_size()
        for path in run_harvest(harvest, tmp_path).glob("shards/*.safetensors")
        for t in load_file(path).values()
    )
    assert 0 < expected_seconds(harvest) < 60


def test_unknown_positions_and_layers_are_refused(fake):
    for capture in (Capture(positions=("t_end",)), Capture(layers=(0, 9))):
        with pytest.raises(UsageError):
            plan_harvest(fake, some_prompts(3), capture)


def test_going_on_needs_a_run(fake, tmp_path):
    with pytest.raises(UsageError, match="no run here"):
        harvest_into(tmp_path, planned(fake))


def test_going_on_in_the_run_itself(fake, run):
    assert harvest_into(run, planned(Altered(fake, must_not_run))) == run
    moved = run.parent.rename(run.parent.with_name("moved")) / run.name
    assert harvest_into(moved, planned(Altered(fake, must_not_run))) == moved


def test_a_renamed_run_can_be_read_but_not_written(fake, run):
    renamed = run.rename(run.with_name("my favourite run"))
    assert ActivationCache.open(renamed).verify() == []
    with pytest.raises(CacheError, match=f"made as {run.name}.*Reading works under any name"):
        harvest_into(renamed, planned(fake))
