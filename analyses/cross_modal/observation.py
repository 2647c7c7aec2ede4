"""What the study needs of a live vision-language model: answers, the ladder, transplants, and why it did not refuse.

Everything is kept beside the run, stamped with what decided it, so that a second look loads no model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.cross_modal.completeness import Transplants
from analyses.cross_modal.ladder import Ladder, climb, read
from analyses.cross_modal.own_refusals import default_refusals, own_refusals
from analyses.cross_modal.placing import place_all
from analyses.cross_modal.questions import QUESTION, different, rung_prompts
from analyses.cross_modal.session import Arrays, Effort, Session
from analyses.cross_modal.transfer import ARMS, CAPTION, TEXT, Answers
from analyses.cross_modal.transplant_claims import Judged
from analyses.cross_modal.transplant_run import TransplantRun
from analyses.cross_modal.twinned import twinned
from interp.causal import answers
from interp.models.adapter import Adapter
from interp.prompts.families import RefusalFamily
from interp.prompts.pairs import Pair


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What was seen of a model.

    Attributes:
        pairs: harmful pairs and their twins, in the order of everything that is by pair.
        answered: what it answered in every arm.
        family: the openings in which refusal log-odds are read.
        refuses: whether it refused anything without a picture; if not, the openings are those of `default_refusals`.
        ladder: of pictures.
        transplants: the map.
        judged: answers under some of the transplants.
        placed: one row per harmful pair: id, scene, concept, answer, named, retrieved, drift, place.
        thresholds: what decided the places: layers, threshold, and how often it fires where it should not.
    """

    pairs: tuple[Pair, ...]
    answered: Answers
    family: RefusalFamily
    refuses: bool
    ladder: Ladder
    transplants: Transplants
    judged: Judged
    placed: pd.DataFrame
    thresholds: dict[str, float]


def observe(
    pairs: Sequence[Pair],
    folder: Path,
    run: str,
    loaded: Callable[[], Adapter],
    *,
    question: str = QUESTION,
    effort: Effort | None = None,
    seed: int = 0,
    notify: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Observed:
    """Asks a model, climbs the ladder and transplants, or takes what is kept.

    Args:
        pairs: harmful ones with a scene, and their twins; all others are left out.
        folder: where what was seen is kept.
        run: what identifies the model, such as the key of its run on these pairs.
        loaded: gives the model; not called when everything is kept.
        question: the instruction of every prompt.
        effort: how much is measured.
        seed: of draws, strangers, noise and resamples.
        notify: told in one line what is happening.
        progress: called with (steps done, steps in all) of what takes long.

    Raises:
        UsageError: when too few harmful pairs have twins, see `twinned`.
    """
    scenes = tuple(pair for pair in pairs if pair.scene is not None)
    session = Session(scenes, folder, run, loaded, question, effort or Effort(), seed, notify, progress)
    answered = answer_all(session)
    words = own_refusals([one for arm in (TEXT, CAPTION) for one in answered.said[arm]])
    family = words or default_refusals()
    transplants = TransplantRun(session, family)
    found = transplants.transplants()
    placed, thresholds = place_all(session, answered)
    return Observed(
        scenes, answered, family, words is not None, climb_all(session, family), found, transplants.judged(found),
        placed, thresholds,
    )  # fmt: skip


def answer_all(session: Session) -> Answers:
    """The answers to every pair in every arm."""
    return as_answers(session.pairs, {arm: answer_arm(session, arm) for arm in ARMS})


def answer_arm(session: Session, arm: str) -> list[str]:
    """The answers to every pair in one arm; prompts that are the same are answered once."""

    def given() -> list[str]:
        session.notify(f"Answering {len(session.pairs)} prompts of the {arm} arm.")
        effort = session.effort
        chosen, back = different(session.prompts(arm))
        found = answers(session.adapter, chosen, tokens=effort.answer_tokens, batch_size=effort.batch_size)
        return [found[i] for i in back]

    said: list[str] = session.json(f"answers_{arm}", given)
    return said


def as_answers(pairs: Sequence[Pair], said: dict[str, list[str]]) -> Answers:
    """Answers by arm with what the pairs are; a twin has the concept of the pair it is a twin of."""
    of = {pair.id: pair for pair in pairs}
    return Answers(
        scenes=tuple(str(pair.scene) for pair in pairs),
        units=tuple(of.get(pair.twin_of or "", pair).unit for pair in pairs),
        harmful=np.array([pair.label == "harmful" for pair in pairs]),
        said=said,
    )


def climb_all(session: Session, family: RefusalFamily) -> Ladder:
    """The ladder of the harmful pairs that have a twin."""
    effort, rows = session.effort, twinned(session.pairs, most=session.effort.ladder, seed=session.seed)

    def climbed() -> Arrays:
        session.notify(f"Climbing the ladder with {len(rows)} pairs.")
        adapter = session.adapter
        layers = tuple(range(adapter.n_layers + 1))
        rungs = rung_prompts(
            rows, adapter.processor, session.folder / "pictures", question=session.question, seed=session.seed
        )
        reading = partial(
            read, adapter, family=family, layers=layers, tokens=effort.answer_tokens, batch_size=effort.batch_size
        )
        found, _ = climb(reading, rungs, rows.units, layers, progress=session.progress)
        return found.arrays()

    return Ladder.of_arrays(session.arrays("ladder", climbed, read=family.phrases), rows.units)
