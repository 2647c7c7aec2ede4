"""From pairs and a model to a training set: texts are retrieved, runs harvested, samples put together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from interp.errors import UsageError
from interp.models.adapter import Adapter
from interp.models.text_encoder import TextEncoder
from interp.prompts.duplicates import normalised
from interp.prompts.pairs import Pair
from interp.scenes.captions import phrases
from interp.tga.assembly import VALIDATION, answered, assemble
from interp.tga.corpus import Corpus
from interp.tga.harvest import harvest_features, harvest_texts
from interp.tga.retrieval import Retrieved, TextIndex
from interp.tga.samples import TrainingSet
from interp.tga.state_retrieval import index_of_states, states_of_pictures
from interp.tga.variants import Variant

ARTICLES = ("a ", "an ", "the ")
SCENES, CAPTION = "scenes", "caption"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prepared:
    """What a training needs.

    Attributes:
        data: the samples with the runs they are read from.
        retrieved: one row per picture: id, caption, the text that was retrieved for it, its similarity.
    """

    data: TrainingSet
    retrieved: pd.DataFrame


def prepare(
    adapter: Adapter,
    pairs: Sequence[Pair],
    root: Path,
    *,
    variant: Variant,
    arm: str,
    question: str,
    retrieve_by: TextEncoder | int,
    texts: Sequence[str] = (),
    answer: Callable[[str], str] = lambda caption: caption,
    notify: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
    **harvest: Any,
) -> Prepared:
    """Retrieves a text for every picture and harvests what training reads; what is there is taken.

    Runs hold the pictures and texts of all arms and variants, so that a comparison of these harvests once.

    Args:
        adapter: a LLaVA-class model.
        pairs: pictures with captions; those of the splits train (or none) and validation are used.
        root: the folder of run folders.
        variant: whether the retrieved text stands in the prompt.
        arm: see `interp.tga.assembly.of_arm`.
        question: the instruction of every prompt.
        retrieve_by: what embeds captions and texts; or the layer at which image states ask for states of texts.
        texts: what can be retrieved beside the captions.
        answer: what is to be answered, made of the caption.
        notify: told in one line what is happening.
        progress: called with (pictures done, pictures in all) while the tower reads.
        harvest: options of the text harvest, as of `run_harvest`.

    Raises:
        UsageError: for an unknown arm, no picture to train on, or too few texts.
        ImageError, ModelError: for what can not be read.
    """
    used = [p for p in pairs if p.split in (None, "train", VALIDATION)]
    if not used:
        raise UsageError(f"none of {len(pairs)} pairs is of split train or {VALIDATION}; there is nothing to train on.")
    captions = list(dict.fromkeys(p.caption for p in used))
    corpus = Corpus.of({"captions": captions, "texts": texts})
    about, found = _retrieved(used, corpus, retrieve_by, adapter, root, notify, question=question, **harvest)
    other = {pair.id: hit.text for pair, hit in zip(used, found, strict=True)}
    notify(f"Vision features of {len(used)} pictures.")
    features = harvest_features(adapter, used, root, question=question, progress=progress)
    every = list(dict.fromkeys((*captions, *other.values())))
    notify(f"States of {len(every)} captions and retrieved texts.")
    states = harvest_texts(adapter, every, root, question=question, **harvest)
    data = assemble(
        adapter, used, arm=arm, variant=variant, features=features, texts=states,
        retrieved=other, question=question, answer=answer,
        about={**about, "pictures": answered(used, question, answer).digest},
    )  # fmt: skip
    rows = [(p.id, p.caption, hit.text, hit.similarity) for p, hit in zip(used, found, strict=True)]
    return Prepared(data, pd.DataFrame(rows, columns=["id", "caption", "retrieved", "similarity"]))


def _retrieved(
    pairs: Sequence[Pair],
    corpus: Corpus,
    by: TextEncoder | int,
    adapter: Adapter,
    root: Path,
    notify: Callable[[str], None],
    **harvest: Any,
) -> tuple[dict[str, str], list[Retrieved]]:
    """What decided the retrieval, and what it gives every picture."""
    captions = [p.caption for p in pairs]
    if isinstance(by, int):
        notify(f"States of {len(pairs)} pictures and {len(corpus)} texts at layer {by}, to retrieve by.")
        index = index_of_states(adapter, corpus, root, layer=by, **harvest)
        found = index.retrieve(captions, states_of_pictures(adapter, pairs, root, layer=by, **harvest))
        return {"index": index.digest, "retrieved_by": f"states of layer {by}"}, found
    index, different = TextIndex.build(corpus, by), list(dict.fromkeys(captions))
    of_caption = dict(zip(different, index.retrieve_by_caption(different, by), strict=True))
    return {"index": index.digest, "retrieved_by": CAPTION}, [of_caption[caption] for caption in captions]


def more_texts(where: str, captions: Sequence[str]) -> tuple[str, ...]:
    """Texts that can be retrieved beside captions, without those that say what a caption says but for an article.

    Args:
        where: ``scenes`` for the bundled descriptions of the seven scenes that a text-safety organism is trained on; a
            file with a text per line; empty for none.
        captions: of the pictures.

    Raises:
        UsageError: for a file that can not be read.
    """
    if not where:
        return ()
    if where == SCENES:
        found = [p.text for p in phrases() if p.kind == "instance" and p.use == "train"]
    else:
        try:
            found = [line.strip() for line in Path(where).read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--texts {where}: can not be read ({error}); give a text file, a text per line."
            ) from error
    known = {_bare(caption) for caption in captions}
    return tuple(text for text in found if text and _bare(text) not in known)


def _bare(text: str) -> str:
    """A text without its article, case, spaces and punctuation."""
    bare = normalised(text)
    return next((bare.removeprefix(a) for a in ARTICLES if bare.startswith(a)), bare)
