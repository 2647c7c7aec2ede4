"""From a model on disk to an adapter of one of the three backends."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from interp.errors import ModelError
from interp.models.adapter import Adapter
from interp.models.identity import TRAINED_LORA, TRAINED_PROJECTOR, ModelIdentity, identify_module
from interp.models.lora import quiet_peft
from interp.models.processor import is_vision_language, load_processor
from interp.models.projector_file import load_projector
from interp.models.runtime import DTYPES, Runtime
from interp.models.source import ModelSource


def load(source: ModelSource, runtime: Runtime | None = None) -> Adapter:
    """Loads a model behind the backend asked for, on disk only: nothing is fetched here.

    A vision-language model comes with its processor, and reads prompts with pictures behind the backend ``hooks``.

    Raises:
        ModelError: when transformers can not load the folder, the adapter does not fit, or the model is not a
            decoder that can be read.
    """
    runtime = (runtime or Runtime()).resolve(source)
    # The identity comes first: it reads nothing but safetensors, and refuses a damaged folder by name.
    identity, processor, model = source.identify(), load_reader(source), _model(source, runtime)
    return _behind(runtime, model, processor, identity, source.folder)


def load_random_twin(source: ModelSource, runtime: Runtime | None = None, seed: int = 0) -> Adapter:
    """A model of the same configuration and tokenizer whose weights are random: what a model knows untrained.

    Its identity is its own: the name says what it is a twin of, the digest is that of the random weights, and it has
    neither revision nor adapter.

    Args:
        source: the model; its weights are not loaded.
        runtime: how the twin is run; give the model's own.
        seed: of the weights. The random state of the process stays as it was.

    Raises:
        ModelError: when transformers can not make a model of the configuration.
    """
    runtime = (runtime or Runtime()).resolve(source)
    trusted = {"trust_remote_code": source.remote_code}
    attention = {} if runtime.attention == "auto" else {"attn_implementation": runtime.attention}
    try:
        config = _config(source)
        # Made on the CPU, so that every device gets the same numbers.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _class(config).from_config(config, dtype=DTYPES[runtime.dtype], **trusted, **attention)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, AttributeError) as error:
        raise ModelError(f"{source.folder}: transformers could not make a random twin of the model: {error}") from error
    processor, name = load_reader(source), f"random twin of {source.name}"
    weights = identify_module(model, processor).weights
    identity = replace(source.identify(), name=name, revision="", weights=weights, adapter="")
    return _behind(runtime, model.to(runtime.device).eval(), processor, identity, source.folder)


def _behind(runtime: Runtime, model: Any, processor: Any, identity: ModelIdentity, folder: Path) -> Adapter:
    """The model behind the backend that the runtime names."""
    if runtime.backend == "transformer_lens":
        from interp.models.transformer_lens import TransformerLensAdapter

        return TransformerLensAdapter(model, processor, identity, runtime, folder=folder)
    if runtime.backend == "nnsight":
        from interp.models.nnsight import NNsightAdapter

        return NNsightAdapter(model, processor, identity, runtime)
    from interp.models.hooks import HooksAdapter

    return HooksAdapter(model, processor, identity, runtime)


def _model(source: ModelSource, runtime: Runtime) -> Any:
    attention = {} if runtime.attention == "auto" else {"attn_implementation": runtime.attention}
    try:
        model, found = _class(_config(source)).from_pretrained(
            source.folder,
            dtype=DTYPES[runtime.dtype],
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=source.remote_code,
            output_loading_info=True,
            **attention,
        )
        model = model.to(runtime.device)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, AttributeError) as error:
        raise ModelError(f"{source.folder}: transformers could not load the model: {error}") from error
    if found["missing_keys"]:
        # transformers fills them with random numbers and only warns.
        lacking = sorted(found["missing_keys"])
        raise ModelError(f"{source.folder}: its weights lack {len(lacking)} tensors, such as {lacking[0]}.")
    return (model if source.adapter is None else _adapted(model, source, source.adapter)).eval()


def _config(source: ModelSource) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(source.folder, local_files_only=True, trust_remote_code=source.remote_code)


def _class(config: Any) -> Any:
    """The class of transformers that makes models of a configuration."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if is_vision_language(config) else AutoModelForCausalLM


def _adapted(model: Any, source: ModelSource, folder: Path) -> Any:
    """The model with a LoRA adapter, or with the projector of a training and its LoRA adapter if it has one."""
    if not (folder / TRAINED_PROJECTOR).is_dir():
        return _merged(model, source, folder)
    # The projector first: it belongs to the model as it was before anything else of it was trained.
    load_projector(model, folder / TRAINED_PROJECTOR)
    lora = folder / TRAINED_LORA
    return _merged(model, source, lora) if lora.is_dir() else model


def _merged(model: Any, source: ModelSource, folder: Path) -> Any:
    """The model with its LoRA adapter merged into the weights, so that every backend sees a plain model."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    try:
        # peft ignores what it has no place for.
        with safe_open(folder / "adapter_model.safetensors", "pt") as file, quiet_peft():
            stored = set(file.keys())
            adapted = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
        placed = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
        if placed != stored:
            odd = sorted(placed ^ stored)
            raise ValueError(f"{len(odd)} tensors have no counterpart, such as {odd[0]}")
        return adapted.merge_and_unload()
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder}: this adapter does not fit {source.name}: {error}") from error


def load_reader(source: ModelSource) -> Any:
    """What reads prompts for a model: the processor of a vision-language model, else the fast tokenizer.

    Raises:
        ModelError: when transformers can not load it.
    """
    tokenizer = load_tokenizer(source)
    try:
        config = _config(source)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{source.folder}: its configuration can not be read: {error}") from error
    return load_processor(source.folder, config, tokenizer) if is_vision_language(config) else tokenizer


def load_tokenizer(source: ModelSource) -> Any:
    """The fast tokenizer of a model, alone: its weights are not read.

    Raises:
        ModelError: when transformers can not load it, or it has no fast version.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source.folder, local_files_only=True, trust_remote_code=source.remote_code
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelError(f"{source.folder}: transformers could not load the tokenizer: {error}") from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"{source.folder}: its tokenizer has no fast version, and only fast ones know where each token "
            "stands in the text; convert it to a tokenizer.json."
        )
    return tokenizer


def count_blocks(source: ModelSource) -> int:
    """How many transformer blocks a model has, from its configuration alone."""
    try:
        return int(_config(source).get_text_config().num_hidden_layers)
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise ModelError(f"{source.folder}: its configuration can not be read: {error}") from error
