"""Refusals and ordinary answers of known kind and language, for training a judge that reads states and no words."""

import re
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from interp.judges import judged_families
from interp.prompts import Prompt, PromptSet
from interp.prompts.families import answer_languages, decoy_names, load_answers, load_decoys

_SENTENCE = re.compile(r"\s*\S.*?(?:[.!?।؟](?=\s|$)|[。！？])", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ReferenceAnswers:
    """Prompts with responses whose behaviour is known.

    Attributes:
        prompts: every one with a response.
        refused: whether it declines.
        kinds: of the refusals, such as policy; ordinary answers and decoys are dealt out over the kinds, so that
            leaving one kind out leaves some of them out too.
        languages: of the responses.
        sources: the family, ``decoy.NAME`` or ``answer.LANGUAGE`` each response comes from.
    """

    prompts: PromptSet
    refused: Bool[ndarray, " row"]
    kinds: tuple[str, ...]
    languages: tuple[str, ...]
    sources: tuple[str, ...]


def reference_answers(prompts: PromptSet) -> ReferenceAnswers:
    """All bundled refusals, decoys and ordinary answers, dealt out over prompts.

    A harmful and a harmless prompt take turns, so what was asked says nothing of what was answered.
    """
    said = [(f.name, f.kind, f.language, text) for f in judged_families() for text in f.phrases]
    kinds = list(dict.fromkeys(kind for _, kind, _, _ in said))
    for name in decoy_names():
        said += [(f"decoy.{name}", kinds[i % len(kinds)], "en", t) for i, t in enumerate(load_decoys(name))]
    for language in answer_languages():
        # The same line of two languages has the same subject, so they go into the same kind.
        said += [
            (f"answer.{language}", kinds[i % len(kinds)], language, t) for i, t in enumerate(load_answers(language))
        ]
    asked = _taking_turns(prompts)
    rows = tuple(
        replace(asked[i % len(asked)], id=f"{source}-{i}", group=f"{source}-{i}", response=first_sentence(text))
        for i, (source, _, _, text) in enumerate(said)
    )
    return ReferenceAnswers(
        prompts=PromptSet("reference answers", rows),
        refused=np.array([not source.startswith(("decoy.", "answer.")) for source, _, _, _ in said]),
        kinds=tuple(kind for _, kind, _, _ in said),
        languages=tuple(language for _, _, language, _ in said),
        sources=tuple(source for source, _, _, _ in said),
    )


def first_sentence(response: str) -> str:
    """The response up to the end of its first sentence, or all of it where none ends.

    Answers are cut after a number of tokens; a judge that read their last tokens would meet half sentences that it
    was never trained on.
    """
    found = _SENTENCE.match(response)
    return found[0] if found else response


def _taking_turns(prompts: PromptSet) -> list[Prompt]:
    """Harmful and harmless prompts in turns; all of them in order where only one kind is there."""
    sides = [[p for p in prompts if p.label == label] for label in ("harmful", "harmless")]
    if not all(sides):
        return list(prompts)
    return [p for pair in zip(*sides, strict=False) for p in pair]
