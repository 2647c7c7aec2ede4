"""The processor of a vision-language model, loaded from its folder with the means that every machine has.

Image processors come in two kinds, one on Pillow and one on torchvision, whose pixels differ a little. Only the first
is ever taken, so a cache does not depend on what is installed, and nothing is asked to install torchvision.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from interp.errors import ModelError

FILES = ("preprocessor_config.json", "processor_config.json")


def is_vision_language(config: Any) -> bool:
    """Whether a configuration of transformers is that of a model that reads pictures and writes text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    return type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and config.get_text_config() is not config


def load_processor(folder: Path, config: Any, tokenizer: Any) -> Any:
    """The processor of a vision-language model, around its tokenizer.

    Args:
        folder: of the model.
        config: its configuration.
        tokenizer: its fast tokenizer.

    Returns:
        The processor; the tokenizer itself for a folder without processor files, which reads no pictures.

    Raises:
        ModelError: when transformers knows no processor for the model or can not load it.
    """
    from transformers import AutoImageProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    if not any((folder / name).is_file() for name in FILES):
        return tokenizer
    kind = without_torchvision(PROCESSOR_MAPPING.get(type(config), None))
    attributes = set() if kind is None else set(kind.get_attributes())
    if not {"image_processor", "tokenizer"} <= attributes:
        raise ModelError(f"{folder}: transformers has no processor of pictures and text for {config.model_type}.")
    try:
        images = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
        parts = {"tokenizer": tokenizer, "image_processor": images}
        settings, _ = kind.get_processor_dict(folder, local_files_only=True)
        processor = assembled(kind, parts, settings)
    except (OSError, ValueError, TypeError, ImportError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder}: transformers could not load the processor: {error}") from error
    if getattr(processor, "image_token", None) is None:
        raise ModelError(f"{folder}: {kind.__name__} names no image token, so no picture can be placed in a prompt.")
    return processor


def without_torchvision(kind: Any) -> Any:
    """The class of a processor; transformers has a stand-in for one whose module asks for torchvision.

    Pixtral's takes a function from the image processor on torchvision that the one on Pillow has, too.
    """
    from transformers import ProcessorMixin

    if kind is None or issubclass(kind, ProcessorMixin):
        return kind
    package = kind.__module__.rpartition(".")[0]
    name = package.rpartition(".")[2]
    wanted = f"{package}.image_processing_{name}"
    try:
        sys.modules[wanted] = import_module(f"{package}.image_processing_pil_{name}")
        return getattr(import_module(kind.__module__), kind.__name__)
    except ImportError as error:
        raise ModelError(f"{kind.__name__} can not be loaded without torchvision: {error}") from error
    finally:
        sys.modules.pop(wanted, None)


class _Absent(dict[str, Any]):
    """Stands where a processor has a part that is never asked for anything; that for videos needs torchvision.

    Empty, and written as such where the settings of the processor are.
    """


def assembled(kind: Any, parts: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """A processor made of some of its parts.

    Args:
        kind: its class.
        parts: by the names that the class gives them; those that are missing are never used for pictures and text.
        settings: of the processor.
    """

    class Assembled(kind):  # type: ignore[misc]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if isinstance(argument, _Absent):
                return _Absent
            return super().check_argument_for_proper_class(argument_name, argument)

    given = [parts.get(name, _Absent()) for name in kind.get_attributes()]
    processor = Assembled.from_args_and_dict(given, dict(settings))
    processor.__class__ = kind
    return processor
