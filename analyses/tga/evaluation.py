"""What a trained projector does: what the model answers to pictures and texts, names, expects, and where states lie."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from analyses.cross_modal.arms import PLACES, image_prompts, require_concepts, slot_prompts
from analyses.cross_modal.completeness import Transplants
from analyses.cross_modal.observation import answer_arm, as_answers
from analyses.cross_modal.own_refusals import default_refusals, own_refusals
from analyses.cross_modal.session import Arrays, Effort, Session
from analyses.cross_modal.transfer import ARMS, CAPTION, IMAGE, TEXT, default_judges, judged
from analyses.cross_modal.transplant_run import TransplantRun
from analyses.subjects import Runner, harvested
from analyses.tga.runs import Run
from interp.cache import ActivationCache, Capture, run_harvest
from interp.causal import refusal_log_odds
from interp.geometry import Alignment, Arms, alignment
from interp.geometry.arms import FOLDS
from interp.models.adapter import Adapter
from interp.models.generation import respond
from interp.models.load import load
from interp.models.padding import in_batches
from interp.models.projector.recipe import named
from interp.models.runtime import Runtime
from interp.models.source import ModelSource
from interp.models.teacher_forcing import answer_log_probs, answered, divergence
from interp.prompts.families import RefusalFamily
from interp.prompts.pairs import Pair
from interp.prompts.twins import bundled_twins
from interp.provenance import code_digest

SLOT = "slot"
TEXT_PROMPTS = 64
VARIANT = "centred"
"""Of the alignment: a direction common to all states of a modality does not raise it."""


@dataclass(frozen=True)
class Evaluated:
    """What one projector does with pairs, in their order.

    Attributes:
        run: which training.
        pairs: pictures with captions: scenes, twins and ordinary ones.
        units: the concept that is resampled; a twin has that of the pair it is a twin of.
        refused: by judge and arm, 1 for an answer judged a refusal, 0 for all else, NaN for what can not be read.
        named: whether the answer to the picture is its caption and nothing else.
        loss: cross-entropy of the caption behind the picture, nats per token.
        log_odds: that the answer to the picture opens as the model's own refusals of text do, nats; NaN for pairs of no
            scene. What is not yet a refusal shows here.
        alignment: picture against caption in its place, over all concepts.
        text_kl: KL(before || after) by text prompt, nats per token along what the model answered before; empty where
            the language model was not trained, so that nothing about text can have changed.
        transplants: the caption's states put into the image run and the reverse; None where that was not tried.
        openings: the words in which refusals were read.
    """

    run: Run
    pairs: tuple[Pair, ...]
    units: tuple[str, ...]
    refused: dict[tuple[str, str], Float[ndarray, " pair"]]
    named: Bool[ndarray, " pair"]
    loss: Float[ndarray, " pair"]
    log_odds: Float[ndarray, " pair"]
    alignment: Alignment
    text_kl: Float[ndarray, " prompt"]
    transplants: Transplants | None = None
    openings: RefusalFamily | None = None


def evaluate(
    run: Run,
    source: ModelSource,
    runtime: Runtime,
    pairs: Sequence[Pair],
    root: Path,
    *,
    question: str,
    answer: Callable[[str], str] = lambda caption: caption,
    effort: Effort | None = None,
    openings: RefusalFamily | None = None,
    transplants: bool = False,
    harvest: Runner = run_harvest,
    seed: int = 0,
    notify: Callable[[str], None] = lambda _: None,
) -> Evaluated:
    """Measures a projector, or takes what is kept; the model is loaded only when something is missing.

    Args:
        run: the training; its folder is put on the model. Without LoRA texts are those of the model as it was.
        source: the model, with the folder of the training as its adapter, or without for the model as it is.
        runtime: resolved.
        pairs: what it is measured on; none that was trained on.
        root: the folder of run folders; answers are kept there too, and may be sensitive.
        question: the instruction.
        answer: what is to be answered, made of the caption.
        effort: how much is measured.
        openings: in which refusals are read, such as those of the model as it was; its own when left out.
        transplants: whether states are transplanted too, which takes longer than all else.
        harvest: runs a planned harvest.
        seed: of the bootstrap and of folds.
        notify: told in one line what is happening.

    Raises:
        UsageError: for pairs of too few concepts, or with too few twins to transplant.
    """
    require_concepts(pairs)
    loaded = _once(source, runtime, notify)
    spoken = source if run.lora else replace(source, adapter=None)
    reading = loaded if spoken == source else _once(spoken, runtime, notify)
    pictures, captions = image_prompts(pairs, question), slot_prompts([p.caption for p in pairs], question)
    seen = harvested(source, runtime, pictures, Capture(positions=(PLACES[SLOT][0],)), root, loaded, harvest)
    said = harvested(spoken, runtime, captions, Capture(positions=(PLACES[SLOT][1],)), root, reading, harvest)
    session = Session(tuple(pairs), Path(seen.place), seen.key, loaded, question, effort or Effort(), seed, notify)
    in_text = replace(session, folder=Path(said.place), run=said.key, loaded=reading)
    answers = as_answers(pairs, {arm: answer_arm(session if arm == IMAGE else in_text, arm) for arm in ARMS})
    words = openings or own_refusals([*answers.said[TEXT], *answers.said[CAPTION]]) or default_refusals()
    return Evaluated(
        run,
        tuple(pairs),
        answers.units,
        {(judge, arm): found for arm in ARMS for judge, found in judged(answers.said[arm], default_judges()).items()},
        np.array([named(one, pair.caption) for one, pair in zip(answers.said[IMAGE], pairs, strict=True)]),
        _caption_loss(session, [answer(pair.caption) for pair in pairs]),
        _log_odds(session, words),
        _aligned(seen, said, pairs, seed),
        _text_kl(session, source, runtime) if run.lora else np.zeros(0),
        TransplantRun(_of_scenes(session), words).transplants() if transplants else None,
        words,
    )


def _read(texts: Sequence[str]) -> tuple[str, ...]:
    """What is kept here depends on texts, and on this module, which the code of a session does not count."""
    return (*texts, code_digest(__name__))


def _once(source: ModelSource, runtime: Runtime, notify: Callable[[str], None]) -> Callable[[], Adapter]:
    found: list[Adapter] = []

    def loaded() -> Adapter:
        if not found:
            notify(f"Loading {source.name} ({runtime.dtype} on {runtime.device}).")
            found.append(load(source, runtime))
        return found[0]

    return loaded


def _aligned(seen: ActivationCache, said: ActivationCache, pairs: Sequence[Pair], seed: int) -> Alignment:
    """Of the states of pictures and of their captions, each caption having been read once."""
    row = {text: i for i, text in enumerate(dict.fromkeys(p.caption for p in pairs))}
    states = said.residuals(position=PLACES[SLOT][1])[torch.tensor([row[p.caption] for p in pairs])]
    concepts = tuple(p.unit for p in pairs)
    arms = Arms(seen.residuals(position=PLACES[SLOT][0]), states, concepts, seen.layers)
    return alignment(arms, VARIANT, folds=min(FOLDS, len(set(concepts)) // 2), seed=seed)


def _of_scenes(session: Session) -> Session:
    """The same without ordinary pairs."""
    return replace(session, pairs=tuple(pair for pair in session.pairs if pair.scene is not None))


def _log_odds(session: Session, words: RefusalFamily) -> Float[ndarray, " pair"]:
    """How near the answer to every picture of a scene is to a refusal in the model's own openings; NaN elsewhere."""
    scenes = _of_scenes(session)
    found = np.full(len(session.pairs), np.nan)
    if scenes.pairs:
        kept = scenes.arrays("refusal_log_odds", partial(_read_refusals, scenes, words), read=_read(words.phrases))
        found[[pair.scene is not None for pair in session.pairs]] = kept["log_odds"]
    return found


def _read_refusals(session: Session, words: RefusalFamily) -> Arrays:
    session.notify(f"Reading refusals behind {len(session.pairs)} pictures.")
    prompts, size = session.prompts(IMAGE), session.effort.batch_size
    return {"log_odds": refusal_log_odds(session.adapter, prompts, [words], batch_size=size).numpy()}


def _caption_loss(session: Session, right: Sequence[str]) -> Float[ndarray, " pair"]:
    return session.arrays("caption_loss", partial(_losses, session, right), read=_read(right))["loss"]


def _losses(session: Session, right: Sequence[str]) -> Arrays:
    """How surprised the model is by the right answer to every picture."""
    adapter, size = session.adapter, session.effort.batch_size
    session.notify(f"Reading {len(right)} captions behind their pictures.")
    texts = answered(adapter.processor, session.prompts(IMAGE), right, tokens=64)
    lengths = [len(text.prompt) + len(text.answer) for text in texts]
    found = np.zeros(len(texts))
    for chosen in map(list, in_batches(lengths, [text.picture for text in texts], size)):
        batch = [texts[i] for i in chosen]
        log_probs = answer_log_probs(adapter.model, batch)
        tokens = torch.tensor([token for text in batch for token in text.answer], device=log_probs.device)
        own = -log_probs.gather(-1, tokens[:, None])[:, 0].double().cpu()
        found[chosen] = [float(part.mean()) for part in own.split([len(text.answer) for text in batch])]
    return {"loss": found}


def _text_kl(session: Session, source: ModelSource, runtime: Runtime) -> Float[ndarray, " prompt"]:
    return session.arrays("text_kl", partial(_parted, session, source, runtime), read=_read(()))["kl"]


def _parted(session: Session, source: ModelSource, runtime: Runtime) -> Arrays:
    """How far the trained language model parts from what it was, on harmless prompts without a picture."""
    session.notify(f"Reading {TEXT_PROMPTS} text prompts before and after.")
    prompts = bundled_twins("test").where(label="harmless").prompts[:TEXT_PROMPTS]
    before, after, tokens = load(replace(source, adapter=None), runtime), session.adapter, session.effort.answer_tokens
    said = respond(before.model, before.processor, prompts, max_new_tokens=tokens)
    texts = answered(after.processor, prompts, said, tokens=tokens)
    found = divergence(partial(answer_log_probs, before.model), partial(answer_log_probs, after.model), texts)
    return {"kl": found.kl.numpy()}
