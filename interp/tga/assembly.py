"""From pictures with captions and retrieved texts to what a projector is trained on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from interp.cache import ActivationCache
from interp.errors import ModelError, UsageError
from interp.models.adapter import Adapter
from interp.models.encoding import Encoded, Encoder
from interp.prompts.images import image_digest
from interp.prompts.pairs import Pair
from interp.prompts.prompt import PromptSet
from interp.tga.harvest import picture_prompts, row_of_text, rows_by_id, text_prompts
from interp.tga.samples import Sample, TrainingSet
from interp.tga.variants import Variant

Arm = Literal["left-out", "guide-only", "captioned"]
ARMS: tuple[str, ...] = get_args(Arm)
VALIDATION = "validation"


def of_arm(pairs: Sequence[Pair], arm: str) -> tuple[list[Pair], list[Pair]]:
    """The pictures that are trained on and those that training is measured on.

    Args:
        pairs: of any split; those of ``test`` are never used.
        arm: ``left-out`` trains on no harmful picture of a scene; ``guide-only`` and ``captioned`` on all.

    Returns:
        Training and validation pairs. No arm is measured on harmful pictures, so that the measure is the same in all.

    Raises:
        UsageError: for an unknown arm, or when no picture is left to train on.
    """
    if arm not in ARMS:
        raise UsageError(f"unknown arm {arm!r}; choose one of {', '.join(ARMS)}.")
    train = [p for p in pairs if p.split in (None, "train") and (arm != "left-out" or p.label == "harmless")]
    if not train:
        raise UsageError(f"arm {arm!r}: no picture of {len(pairs)} is left to train on; give some of split train.")
    return train, [p for p in pairs if p.split == VALIDATION and p.label == "harmless"]


def assemble(
    adapter: Adapter,
    pairs: Sequence[Pair],
    *,
    arm: str,
    variant: Variant,
    features: ActivationCache,
    texts: ActivationCache | None,
    retrieved: Mapping[str, str],
    question: str,
    answer: Callable[[str], str] = lambda caption: caption,
    about: Mapping[str, str] | None = None,
) -> TrainingSet:
    """Puts a training set together.

    Args:
        adapter: the model, for its template and vocabulary.
        pairs: pictures with captions; see `of_arm` for which are used.
        arm: left-out, guide-only (harmful pictures of scenes count in the guide alone) or captioned.
        variant: whether the retrieved text stands in the prompt.
        features: of all pictures, see `harvest_features`.
        texts: of all captions and retrieved texts, see `harvest_texts`; None where nothing is guided or measured.
        retrieved: the text retrieved for every picture, by its id.
        question: the instruction.
        answer: what is to be answered, made of the caption.
        about: digests of what else decided it, such as that of the index.

    Raises:
        UsageError: for an unknown arm, or when no picture is left.
        CacheError: when a run lacks a picture or text.
    """
    train, validation = of_arm(pairs, arm)
    used = [*train, *validation]
    feature_rows, text_rows = rows_by_id(features), {} if texts is None else rows_by_id(texts)
    encoded = _encoded(adapter, used, question, answer)
    before = _with_text(adapter, [retrieved[p.id] for p in used], question) if variant.retrieved_in_prompt else {}
    samples = []
    for pair, (prompt, answered) in zip(used, encoded, strict=True):
        if pair.id not in feature_rows:
            raise UsageError(f"{features.place}: holds no features of picture {pair.id!r}; harvest all pictures.")
        ids, image = _prompt(prompt, before.get(retrieved.get(pair.id, "")))
        known: dict[str, Any] = {}
        if texts is not None:
            known = {
                "caption": row_of_text(text_rows, pair.caption),
                "retrieved": row_of_text(text_rows, retrieved[pair.id]),
            }
        captioned = arm != "guide-only" or pair.label == "harmless"
        known |= {"captioned": captioned, "picture": picture_of(pair)}
        samples.append(Sample(pair.id, ids, image, answered, feature_rows[pair.id], **known))
    n = len(train)
    return TrainingSet(tuple(samples[:n]), tuple(samples[n:]), features, texts, arm, dict(about or {}))


def picture_of(pair: Pair) -> str:
    """A picture by its bytes: the first 16 hex digits of the sha256 of its file."""
    return image_digest(pair.image)[:16]


def answered(pairs: Sequence[Pair], question: str, answer: Callable[[str], str]) -> PromptSet:
    """Every picture with the question and what is to be answered."""
    prompts = picture_prompts(pairs, question)
    said = (replace(q, response=answer(pair.caption)) for q, pair in zip(prompts, pairs, strict=True))
    return PromptSet("answered", tuple(said))


def _encoded(
    adapter: Adapter, pairs: Sequence[Pair], question: str, answer: Callable[[str], str]
) -> list[tuple[Encoded, tuple[int, ...]]]:
    """Every prompt with its picture, and the tokens of its answer with the end of the turn."""
    found = []
    for e in Encoder(adapter.processor).encode(answered(pairs, question, answer), ["image_mean", "t_post"]):
        stop = e.at["t_post"] + 1
        prompt = replace(e, ids=e.ids[:stop], classes=e.classes[:stop])
        found.append((prompt, (*e.ids[stop:], adapter.tokenizer.eos_token_id)))
    return found


def _with_text(adapter: Adapter, texts: Sequence[str], question: str) -> dict[str, tuple[int, ...]]:
    """For every text the tokens from the start of the prompt to the instruction, the text in the slot."""
    prompts = text_prompts(texts, question)
    encoded = Encoder(adapter.processor).encode(prompts, ["caption_mean"])
    return {str(p.caption): e.ids[: e.of_class("instruction")[0]] for p, e in zip(prompts, encoded, strict=True)}


def _prompt(encoded: Encoded, text: tuple[int, ...] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids and the places of the image tokens; with a text the picture follows it, as it else follows the start.

    The tokens up to the text's end are those of the prompt that its cached states come from, so in a causal model these
    are its states here too.
    """
    image = encoded.of_class("image")
    if text is None:
        return encoded.ids, image
    start = encoded.ids[: image[0]]
    # A vocabulary may join the template's last white space with the first word of a text.
    if text[: len(start) - 1] != start[:-1]:
        raise ModelError("the template does not put a text where it puts a picture, so no text can stand before one.")
    moved = len(text) - len(start)
    return (*text, *encoded.ids[image[0] :]), tuple(i + moved for i in image)
