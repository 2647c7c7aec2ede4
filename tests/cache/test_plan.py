import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.cache.plan import Capture, make_plan
from interp.errors import UsageError

# Small alphabets make shared prefixes, equal prompts and prompts that begin like others likely.
IDS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=40), min_size=1, max_size=40)


@st.composite
def inputs(draw):
    prefix = draw(st.lists(st.integers(0, 2), max_size=10))
    ids = [prefix + tail for tail in draw(IDS)]
    first_read = [draw(st.integers(0, len(i) - 1)) for i in ids]
    limits = {"token_budget": draw(st.integers(1, 200)), "max_rows": draw(st.integers(1, 10))}
    return ids, first_read, limits, draw(st.booleans())


@given(inputs())
def test_every_prompt_is_in_exactly_one_shard(given):
    ids, first_read, limits, share = given
    plan = make_plan(ids, first_read, **limits, share_prefix=share)
    assert sorted(i for shard in plan.shards for i in shard) == list(range(len(ids)))
    assert all(plan.shards)


@given(inputs())
def test_batches_obey_the_limits_unless_a_single_prompt_is_too_long(given):
    ids, first_read, limits, share = given
    plan = make_plan(ids, first_read, **limits, share_prefix=share)
    for shard, tokens in zip(plan.shards, plan.tokens, strict=True):
        assert tokens == len(shard) * (max(len(ids[i]) for i in shard) - plan.shared)
        assert len(shard) <= limits["max_rows"]
        assert tokens <= limits["token_budget"] or len(shard) == 1


@given(inputs())
def test_the_shared_prefix_is_common_to_all_and_nothing_is_read_inside(given):
    ids, first_read, limits, share = given
    shared = make_plan(ids, first_read, **limits, share_prefix=share).shared
    assert len({tuple(i[:shared]) for i in ids}) == 1
    assert shared <= min(first_read)
    if not share or len(ids) == 1:
        assert shared == 0
    elif shared < min(first_read):
        assert len({tuple(i[: shared + 1]) for i in ids}) > 1, "the prefix could be longer"


@given(inputs())
def test_equal_inputs_give_equal_plans(given):
    ids, first_read, limits, share = given
    once = make_plan(ids, first_read, **limits, share_prefix=share)
    again = make_plan([tuple(i) for i in ids], tuple(first_read), **limits, share_prefix=share)
    assert once == again


@given(inputs())
def test_prompts_go_from_short_to_long(given):
    ids, first_read, limits, share = given
    plan = make_plan(ids, first_read, **limits, share_prefix=share)
    order = [i for shard in plan.shards for i in shard]
    assert order == sorted(order, key=lambda i: (len(ids[i]), i))


def test_resolve_decides_layers_and_storage():
    resolved = Capture().resolve(n_layers=2, compute_dtype="bf16")
    assert resolved.layers == (0, 1, 2)
    assert resolved.storage == "bf16"
    # fp16 overflows at 65504, and states are larger than that in real models.
    assert Capture().resolve(n_layers=2, compute_dtype="fp16").storage == "fp32"
    assert Capture(storage="fp32").resolve(n_layers=2, compute_dtype="bf16").storage == "fp32"


@pytest.mark.parametrize(
    ("capture", "message"),
    [
        (Capture(layers=(3,)), "within 0 to 2"),
        (Capture(layers=(-1, 0)), "within 0 to 2"),
        (Capture(layers=(1, 1)), "ascend"),
        (Capture(layers=(2, 1)), "ascend"),
        (Capture(storage="fp16"), "fp16"),
        (Capture(positions=()), "at least one"),
        (Capture(token_budget=0), "at least 1"),
        (Capture(max_rows=0), "at least 1"),
    ],
)
def test_resolve_refuses_what_means_nothing(capture, message):
    with pytest.raises(UsageError, match=message):
        capture.resolve(n_layers=2, compute_dtype="fp32")
