import numpy as np
import pytest
import torch

from interp.cache import ActivationCache
from interp.errors import NonFinite, UsageError
from tests.cache.samples import some_prompts

N = 300  # more than one shard


def make(states, root, **options):
    return ActivationCache.from_arrays(states, some_prompts(N), root, name="mine", **options)


def states(dtype=torch.float32):
    return torch.randn(N, 3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_come_back_as_they_were(tmp_path, dtype):
    given = {"t_inst": states(dtype), "last": -states(dtype)}
    cache = make(given, tmp_path)
    assert cache.positions == ("t_inst", "last")
    assert cache.layers == (0, 1, 2)
    assert cache.identity["model.name"] == "mine"
    for position, tensor in given.items():
        assert torch.equal(cache.residuals(position=position), tensor.float())
        assert next(cache.shards(position=position))[1].dtype == dtype
    assert cache.verify() == []
    assert len(list(cache.shards(position="last"))) == 2


def test_numpy_arrays_come_back_as_they_were(tmp_path):
    array = states().numpy()
    array.flags.writeable = False
    for given in (array, np.asfortranarray(array), array[:, ::-1]):
        assert np.array_equal(make({"t_inst": given}, tmp_path).residuals(position="t_inst").numpy(), given)


def test_tensors_in_a_graph_are_taken_as_numbers(tmp_path):
    given = states().requires_grad_()
    assert torch.equal(make({"t_inst": given}, tmp_path).residuals(position="t_inst"), given.detach())


def test_layers_have_the_numbers_given(tmp_path):
    cache = make({"t_inst": states()}, tmp_path, layers=(4, 8, 31))
    assert cache.layers == (4, 8, 31)
    assert torch.equal(cache.residuals(position="t_inst", layer=31), states()[:, 2])


def test_equal_arrays_are_one_run_and_others_another(tmp_path):
    one = make({"t_inst": states()}, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}
    assert make({"t_inst": states()}, tmp_path).key == one.key
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")} == before
    changed = states()
    changed[7, 1, 2] = torch.nextafter(changed[7, 1, 2], torch.tensor(9.0))
    keys = {
        one.key,
        make({"t_inst": changed}, tmp_path).key,
        make({"t_post": states()}, tmp_path).key,
        make({"t_inst": states()}, tmp_path, layers=(1, 2, 3)).key,
        make({"t_inst": states(torch.bfloat16)}, tmp_path).key,
    }
    assert len(keys) == 5


def test_texts_are_kept_only_when_asked(tmp_path):
    assert make({"t_inst": states()}, tmp_path / "a").prompts["text"].isna().all()
    assert make({"t_inst": states()}, tmp_path / "b", keep_text=True).prompts["text"].notna().all()


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({}, {}, "arrays must be given"),
        ({"a": states(), "b": states()[:, :2]}, {}, "all of one shape"),
        ({"a": states()[:-1]}, {}, r"shape \(299, 3, 5\) are not .* for 300 prompts"),
        ({"a": states()[:, 0]}, {}, r"shape \(300, 5\)"),
        ({"a": states()}, {"layers": (0, 1)}, "2 layers"),
        ({"a": states()}, {"layers": (2, 1, 0)}, "must ascend"),
        ({"a": states()}, {"layers": (1, 1, 2)}, "must ascend"),
        ({"a": states().double()}, {}, "float64 is not float32 or bfloat16; convert it first"),
        ({"a": states().half()}, {}, "float16"),
        ({"a": states().int()}, {}, "int32"),
        ({"a": states().numpy().astype(">f4")}, {}, "a: "),
        ({"a": states().numpy().astype(object)}, {}, "a: "),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, given, options, message):
    with pytest.raises(UsageError, match=message):
        make(given, tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_place(tmp_path, value):
    given = states().numpy()
    given[211, 2, 0] = value
    with pytest.raises(NonFinite, match="a: prompt 'p211', layer 8"):
        make({"a": given}, tmp_path, layers=(0, 4, 8))
    assert list(tmp_path.iterdir()) == []
