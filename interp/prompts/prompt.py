"""The prompt record and the set of prompts: validated once, then only read."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

import pandas as pd

from interp.errors import UsageError
from interp.prompts.images import image_digest

Label = Literal["harmful", "harmless"]
LABELS: tuple[str, ...] = get_args(Label)
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; ``role`` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt: a conversation that ends with the user's instruction, and what is known of it.

    Attributes:
        id: unique in its set.
        messages: the turns; the last one is the user's instruction.
        label: what is asked, harmful or harmless; None when unknown.
        category: a topic or policy name; None when unknown.
        group: prompts of one group (the two of a twin, paraphrases) are never split or resampled apart.
        split: train, validation, test or a name of the user's; None when unknown.
        image: path of the picture in the slot, the place before the instruction; None for text only.
        caption: words in the slot instead of a picture; None for none.
        response: an answer to the instruction, for models that read what was answered; None for none.
    """

    id: str
    messages: tuple[Message, ...]
    label: Label | None = None
    category: str | None = None
    group: str | None = None
    split: str | None = None
    image: str | None = None
    response: str | None = None
    caption: str | None = None

    def __post_init__(self) -> None:
        if self.image is not None and self.caption is not None:
            raise UsageError(
                f"prompt {self.id!r} has both an image and a caption, but one thing stands in the slot before the "
                "instruction; make two prompts of it."
            )

    @property
    def text(self) -> str:
        """The user's instruction: the content of the last message."""
        return self.messages[-1].content

    @property
    def unit(self) -> str:
        """The resampling unit: the group, or the prompt itself when it has none."""
        return self.group or self.id

    @property
    def unanswered(self) -> "Prompt":
        """The same prompt without its response, for a model that is to answer it."""
        return replace(self, response=None)


def user_prompt(id: str, text: str, **known: str | None) -> Prompt:  # noqa: A002
    """Makes the common case: one user message; ``known`` are the other fields of `Prompt`."""
    return Prompt(id=id, messages=(Message("user", text),), **known)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class PromptSet:
    """An ordered set of prompts with unique ids; ``name`` says where it came from."""

    name: str
    prompts: tuple[Prompt, ...]

    def __post_init__(self) -> None:
        ids = [p.id for p in self.prompts]
        if not ids:
            raise UsageError(f"{self.name}: no prompts left; check the file or the filter.")
        if len(set(ids)) < len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise UsageError(f"{self.name}: prompt id {twice!r} appears twice; ids must be unique.")

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    @property
    def digest(self) -> str:
        """The sha256 hex digest of every field of every prompt, in order; a picture counts by its bytes.

        Raises:
            ImageError: when a picture is not there.
        """
        records = [_record(p) for p in self.prompts]
        return hashlib.sha256(json.dumps(records, sort_keys=True, ensure_ascii=False).encode("utf-8")).hexdigest()

    def where(self, **fields: str) -> "PromptSet":
        """The prompts whose fields have these values, such as ``split="test"``, in the same order."""
        kept = tuple(p for p in self.prompts if all(getattr(p, k) == v for k, v in fields.items()))
        return replace(self, prompts=kept)

    def with_system(self, text: str) -> "PromptSet":
        """The same prompts with a system message before each, in place of one they may have."""
        kept = tuple(
            replace(p, messages=(Message("system", text), *(m for m in p.messages if m.role != "system")))
            for p in self.prompts
        )
        return replace(self, prompts=kept)

    def frame(self) -> pd.DataFrame:
        """One row per prompt: id, text, label, category, group, split, image; missing values are None."""
        columns = ["id", "text", "label", "category", "group", "split", "image"]
        rows = [[getattr(p, c) for c in columns] for p in self.prompts]
        return pd.DataFrame(rows, columns=columns, dtype=object)


def _record(prompt: Prompt) -> dict[str, object]:
    """The fields of a prompt; those that prompts could not always have are left out where there is nothing in them."""
    fields = {k: v for k, v in asdict(prompt).items() if k not in ("response", "caption") or v is not None}
    return fields if prompt.image is None else {**fields, "image": image_digest(prompt.image)}
