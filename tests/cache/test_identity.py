import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.cache import ActivationCache, Capture, harvest_into, plan_harvest, run_harvest
from interp.cache import identity as identity_module
from interp.cache.identity import canonical_json, require_same, run_key, surroundings
from interp.errors import ModelMismatch
from interp.models.hooks import HooksAdapter
from interp.prompts.prompt import PromptSet, user_prompt
from tests.cache.samples import planned, some_prompts
from tests.tiny import CHATML, make_tokenizer, tiny_llama

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("ab"), JSON))
def test_canonical_json_reads_back_and_does_not_depend_on_order(value):
    assert json.loads(canonical_json(value)) == value
    backwards = dict(reversed(value.items()))
    assert canonical_json(backwards) == canonical_json(value)
    assert run_key(backwards) == run_key(value)


def test_canonical_json_has_no_nan():
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


def test_where_and_when_are_not_part_of_the_identity(tiny_adapter, monkeypatch):
    identity = planned(tiny_adapter).identity
    monkeypatch.setattr(identity_module.platform, "node", lambda: "another host")
    monkeypatch.setattr(tiny_adapter, "runtime", replace(tiny_adapter.runtime, device="cpu:1"))
    assert planned(tiny_adapter).identity == identity
    assert surroundings()["host"] == "another host"


def test_how_the_model_is_run_is_named_before_what_follows_from_it():
    made = {"runtime.dtype": "fp32", "capture.storage": "fp32", "model.weights": "a"}
    with pytest.raises(ModelMismatch) as found:
        require_same("run", made, {"runtime.dtype": "bf16", "capture.storage": "bf16", "model.weights": "b"})
    assert found.value.field == "runtime.dtype"


def one_ulp():
    model = tiny_llama()
    weight = model.model.layers[2].mlp.down_proj.weight.data
    weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(torch.inf))
    return HooksAdapter.of_module(model, make_tokenizer())


def other_config():
    model = tiny_llama()
    model.config.rms_norm_eps *= 2
    return HooksAdapter.of_module(model, make_tokenizer())


def other_tokenizer():
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["bread and butter"])
    return HooksAdapter.of_module(tiny_llama(), tokenizer)


def adapter(chat_template=CHATML, dtype=torch.float32, **config):
    return HooksAdapter.of_module(tiny_llama(**config).to(dtype), make_tokenizer(chat_template))


def reversed_prompts():
    return PromptSet("some", some_prompts(12).prompts[::-1])


def edited_prompt():
    prompts = some_prompts(12).prompts
    return PromptSet("some", (*prompts[:11], user_prompt("p11", prompts[11].text + " Please.", label="harmless")))


ELSE = {
    "weights by one ulp": ("model.weights", lambda: planned(one_ulp())),
    "config": ("model.config", lambda: planned(other_config())),
    "tokenizer": ("model.tokenizer", lambda: planned(other_tokenizer())),
    "chat template": ("model.chat_template", lambda: planned(adapter(CHATML.replace("assistant", "model")))),
    "prompt order": ("prompts", lambda: plan_harvest(adapter(), reversed_prompts(), Capture(max_rows=4))),
    "prompt text": ("prompts", lambda: plan_harvest(adapter(), edited_prompt(), Capture(max_rows=4))),
    "layers": ("capture.layers", lambda: planned(adapter(), layers=(0, 1, 2))),
    "positions": ("capture.positions", lambda: planned(adapter(), positions=("t_inst",))),
    "storage dtype": ("capture.storage", lambda: planned(adapter(), storage="bf16")),
    "compute dtype": ("runtime.dtype", lambda: planned(adapter(dtype=torch.bfloat16))),
    "attention": ("runtime.attention", lambda: planned(adapter(attn_implementation="eager"))),
    "token budget": ("capture.token_budget", lambda: planned(adapter(), token_budget=4095)),
    "rows": ("capture.max_rows", lambda: planned(adapter(), max_rows=5)),
    "prefix": ("capture.share_prefix", lambda: planned(adapter(), share_prefix=False)),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return run_harvest(planned(adapter()), tmp_path_factory.mktemp("made"))


def refused(run, harvest, field):
    with pytest.raises(ModelMismatch) as going_on:
        harvest_into(run, harvest)
    with pytest.raises(ModelMismatch) as opening:
        ActivationCache.open(run, expect=harvest.identity)
    for error in (going_on.value, opening.value):
        assert error.field == field
        assert error.expected != error.found
        assert field in str(error) and repr(error.found) in str(error)
        assert error.exit_code == 4


@pytest.mark.parametrize("what", ELSE)
def test_going_on_with_something_else_is_refused_by_name(made, what):
    field, different = ELSE[what]
    refused(made, different(), field)


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_going_on_with_another_library_is_refused_by_name(made, monkeypatch, package):
    real = identity_module.version
    monkeypatch.setattr(identity_module, "version", lambda p: "1.0.0" if p == package else real(p))
    refused(made, planned(adapter()), package)


def test_another_patch_version_is_no_other_library(made, monkeypatch):
    real = identity_module.version
    monkeypatch.setattr(identity_module, "version", lambda p: f"{'.'.join(real(p).split('.')[:2])}.99")
    ActivationCache.open(made, expect=planned(adapter()).identity)


def test_a_hundred_reopenings_of_a_moved_run_raise_no_false_alarm(tmp_path):
    harvest = planned(adapter())
    run = run_harvest(harvest, tmp_path / "start")
    states = ActivationCache.open(run).residuals(position="t_inst")
    for i in range(100):
        if i % 2:
            run = run.parent.rename(tmp_path / f"moved {i}") / run.name
            assert harvest_into(run, harvest) == run
        else:
            (tmp_path / f"{i}").mkdir()
            run = run.rename(tmp_path / f"{i}" / run.name)
        called = run.rename(run.with_name(f"run of {i}"))
        cache = ActivationCache.open(called, expect=planned(harvest.adapter).identity)
        assert torch.equal(cache.residuals(position="t_inst"), states)
        run = called.rename(run)
