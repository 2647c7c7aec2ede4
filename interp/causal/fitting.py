"""Whether edits fit the model and the prompts that they are to act on."""

from collections.abc import Sequence
from itertools import pairwise

from interp.causal.class_patch import ClassPatch
from interp.causal.edits import Edit, Patch, SubspacePatch
from interp.errors import UsageError
from interp.models.encoding import Encoded

PATCHES = (Patch, SubspacePatch, ClassPatch)


def picture_of(text: Encoded) -> str:
    """The digest of a prompt's picture; empty for none."""
    return "" if text.picture is None else text.picture.sha256


def check(edits: Sequence[Edit], texts: Sequence[Encoded], *, n_layers: int, d_model: int) -> None:
    """Checks that edits fit.

    Args:
        edits: what is to be written.
        texts: the prompts, in the order of the rows of patches.
        n_layers: how many blocks the model has.
        d_model: the width of its residual stream.

    Raises:
        UsageError: for layers the model does not have, vectors of another width, places before the start of a prompt,
            classes that a prompt has no token of, patches with another number of rows than texts, and texts that can
            not be told apart.
    """
    for edit in edits:
        name = type(edit).__name__
        beyond = [layer for layer in edit.at_layers(n_layers) if not 0 <= layer <= n_layers]
        if beyond:
            raise UsageError(f"{name}: layers {beyond} do not exist; this model has 0 to {n_layers}.")
        if edit.width != d_model:
            raise UsageError(f"{name}: made for states of width {edit.width}, but the model's are {d_model} wide.")
        if edit.at is not None:
            _check_texts(edit, name, texts)
        if isinstance(edit, PATCHES) and len(edit.values) != len(texts):
            raise UsageError(f"{name}: {len(edit.values)} rows of values for {len(texts)} prompts; give one each.")
        if isinstance(edit, ClassPatch):
            _check_counts(edit, texts)
    told = {(text.ids, picture_of(text)) for text in texts}
    if any(isinstance(edit, PATCHES) for edit in edits) and len(told) < len(texts):
        raise UsageError(
            "patches tell prompts apart by their tokens and pictures, but one stands there twice; keep one of them."
        )


def _check_texts(edit: Edit, name: str, texts: Sequence[Encoded]) -> None:
    if not texts:
        raise UsageError(f"{name}: at = {edit.at} counts from the end of the prompt; give `editing` the prompts.")
    if isinstance(edit.at, str):
        lacking = next((row for row, text in enumerate(texts) if not text.group(edit.at)), None)
        if lacking is not None:
            raise UsageError(f"{name}: prompt {lacking} has no token of the class {edit.at!r}; give it encoded.")
    else:
        depth = -min(edit.at or ())
        short = next((row for row, text in enumerate(texts) if len(text.ids) < depth), None)
        if short is not None:
            raise UsageError(f"{name}: place {-depth}, but prompt {short} has only {len(texts[short].ids)} tokens.")
    ordered = sorted({(picture_of(text), text.ids) for text in texts})
    for (this_picture, this), (next_picture, following) in pairwise(ordered):
        if this_picture == next_picture and following[: len(this)] == this:
            raise UsageError(f"{name}: one prompt begins with all of another, {list(this)}; its end is not known.")


def _check_counts(edit: ClassPatch, texts: Sequence[Encoded]) -> None:
    for row, (value, text) in enumerate(zip(edit.values, texts, strict=True)):
        if len(value) != len(text.group(edit.at)):
            raise UsageError(
                f"ClassPatch: {len(value)} states for the {len(text.group(edit.at))} tokens of class {edit.at!r} of "
                f"prompt {row}; lay them with `laid`."
            )
