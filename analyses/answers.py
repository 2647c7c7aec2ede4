"""What a model answers, kept beside the states of the same prompts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from interp.cache import ActivationCache
from interp.cache.derived import keep_json, kept_json
from interp.errors import Interrupted
from interp.models.generation import respond
from interp.prompts import PromptSet


def answers(
    cache: ActivationCache,
    prompts: PromptSet,
    loaded: Callable[[], Any],
    *,
    tokens: int,
    progress: Callable[[int, int], None] = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[str, ...]:
    """The greedy answers to the prompts of a cache, or those kept from before; see `interp.models.generation.respond`.

    Args:
        cache: in a local folder, made by the model of these prompts.
        prompts: those of the cache.
        loaded: loads the model; not called when the answers are there.
        tokens: most tokens of an answer.
        progress: called with (prompts done, prompts in all).
        should_stop: asked after every batch.

    Raises:
        Interrupted: when told to stop; no answer is kept then.
    """
    folder, stamp = Path(cache.place), {"run": cache.key, "tokens": tokens}
    kept = kept_json(folder, "responses", stamp)
    if kept is not None:
        return tuple(kept)

    def batch_done(done: int, total: int) -> None:
        progress(done, total)
        if done < total and should_stop():
            raise Interrupted("stopped while the model was answering; none of its answers was kept.")

    model = loaded()
    found = respond(model.model, model.processor, prompts, max_new_tokens=tokens, progress=batch_done)
    keep_json(folder, "responses", stamp, found)
    return tuple(found)
