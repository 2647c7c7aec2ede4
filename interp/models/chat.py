"""A prompt as text: the model's own chat template, and where each message lies in what it renders.

A prompt may have something in its slot, the place that the model keeps for a picture before the instruction: a picture,
as the placeholder that its processor writes out, or a caption, which stands exactly where the placeholder would. Where
the template puts no white space between the two, a caption is followed by a line break.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from jinja2.exceptions import TemplateError

from interp.errors import ModelError
from interp.prompts.prompt import Prompt

Span = tuple[int, int]
Expand = Callable[[str], str]
"""What a processor makes of a text with a placeholder for the picture: all other text stays, or gains something."""

SLOT = "\u27e6slot\u27e7"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as text: what the chat template makes of it, and where the message contents lie in it.

    Attributes:
        text: the whole text.
        spans: (start, end) in characters, one per message and one for a caption, in the order of the text.
        instruction: the span of the last user message.
        frame: the text of the template around and between the spans; empty for a model without a template.
        caption: the span of the caption; None for none.
        special: whether the tokenizer adds its special tokens, which a template writes itself.
    """

    text: str
    spans: tuple[Span, ...]
    instruction: Span
    frame: tuple[str, ...]
    caption: Span | None = None
    special: bool = False


@dataclass(frozen=True, slots=True)
class _Skeleton:
    """A rendered conversation with marks for its contents.

    Attributes:
        text: with a mark where each content, and what is in the slot, lies.
        contents: what lies at each mark, as the template renders it.
        placeholder: what the template writes for a picture in the slot.
    """

    text: str
    contents: Mapping[str, str]
    placeholder: str = ""


def render(
    tokenizer: Any, prompt: Prompt, *, template: Any = None, placeholder: str = "", expand: Expand | None = None
) -> Rendered:
    """The text of a prompt under the chat template, or the bare instruction where the model has none.

    Args:
        tokenizer: renders the template.
        prompt: with or without something in the slot.
        template: the chat template, the tokenizer's own when not given.
        placeholder: what stands for a picture in the text; empty for a model that reads none.
        expand: writes out the placeholder of the prompt's picture; needed where it has one, and given for all texts of
            a model that reads pictures, since processors may add something to any.

    Raises:
        ModelError: when the template refuses the conversation, drops a message or changes its text.
    """
    template = template or tokenizer.chat_template
    renderer = _Renderer(tokenizer, template, prompt)
    if not template:
        skeleton = _bare(prompt, placeholder)
    elif placeholder:
        skeleton = _first(partial(_of_parts, renderer, placeholder), partial(_of_texts, renderer, placeholder))
    else:
        # Templates of vision-language models may take nothing but lists of parts, for text too.
        skeleton = _first(partial(_of_texts, renderer), partial(_of_texts, renderer, as_part=True))
    text, contents = skeleton.text, dict(skeleton.contents)
    if prompt.caption is not None:
        follows = text.partition(SLOT)[2][:1]
        text = text if follows.isspace() else text.replace(SLOT, f"{SLOT}\n")
        contents[SLOT] = prompt.caption
    else:
        text = text.replace(SLOT, skeleton.placeholder)
    # Only marks stand in the text, so nothing that a message holds can pass for a picture.
    return _assembled(prompt, text if expand is None else expand(text), contents, bare=not template)


@dataclass(frozen=True, slots=True)
class _Renderer:
    """Renders a prompt's conversation with other contents."""

    tokenizer: Any
    template: Any
    prompt: Prompt

    @property
    def marks(self) -> list[str]:
        return _marks(self.prompt)

    def __call__(self, contents: list[Any]) -> str:
        messages = [{"role": m.role, "content": c} for m, c in zip(self.prompt.messages, contents, strict=True)]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages, chat_template=self.template, tokenize=False, add_generation_prompt=True
                )
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise ModelError(f"prompt {self.prompt.id!r}: the model's chat template refuses it: {error}") from error


def _marks(prompt: Prompt) -> list[str]:
    return [f"\u27e6message-{i}\u27e7" for i in range(len(prompt.messages))]


def _has_slot(prompt: Prompt) -> bool:
    return prompt.image is not None or prompt.caption is not None


def _bare(prompt: Prompt, placeholder: str) -> _Skeleton:
    if len(prompt.messages) > 1:
        raise ModelError(
            f"prompt {prompt.id!r}: has {len(prompt.messages)} messages, but this model has no chat "
            "template; give single instructions, or a model with a template."
        )
    (mark,) = _marks(prompt)
    return _Skeleton((SLOT if _has_slot(prompt) else "") + mark, {mark: prompt.text}, placeholder)


def _first(one: Callable[[], _Skeleton], other: Callable[[], _Skeleton]) -> _Skeleton:
    """One skeleton, or another where that is refused; the error of the first where both are."""
    try:
        return one()
    except ModelError as refused:
        try:
            return other()
        except ModelError:
            raise refused from None


def _of_texts(renderer: _Renderer, placeholder: str = "", *, as_part: bool = False) -> _Skeleton:
    """For a template that takes a message as a string, or as its only part: slot and line break begin the text."""
    prompt, marks = renderer.prompt, renderer.marks
    lead = f"{SLOT}\n" if _has_slot(prompt) else ""

    def rendered(texts: list[str]) -> str:
        whole = [*texts[:-1], lead + texts[-1]]
        return renderer([[{"type": "text", "text": text}] for text in whole] if as_part else whole)

    text, skeleton = rendered([m.content for m in prompt.messages]), rendered(marks)
    _require_parts_known(prompt, skeleton)
    return _Skeleton(skeleton, _contents(prompt, text, skeleton, marks), placeholder)


def _require_parts_known(prompt: Prompt, skeleton: str) -> None:
    """A template that takes messages for strings writes the list of their parts as Python does."""
    if any(f"'text': '{mark}" in skeleton for mark in (*_marks(prompt), SLOT)):
        raise ModelError(f"prompt {prompt.id!r}: the model's chat template does not know messages of several parts.")


def _of_parts(renderer: _Renderer, placeholder: str) -> _Skeleton:
    """For a template that takes a message as a list of parts: the slot is what a picture adds to the text."""
    prompt, marks = renderer.prompt, renderer.marks
    contents = [m.content for m in prompt.messages]
    picture = [{"type": "image"}] if _has_slot(prompt) else []

    def parts(texts: list[str], lead: list[dict[str, str]]) -> list[Any]:
        whole = [[{"type": "text", "text": text}] for text in texts]
        return [*whole[:-1], [*lead, *whole[-1]]]

    text, skeleton = renderer(parts(contents, picture)), renderer(parts(marks, picture))
    _require_parts_known(prompt, skeleton)
    found = _contents(prompt, text, skeleton, marks)
    if not picture:
        return _Skeleton(skeleton, found, placeholder)
    start, end = _added(skeleton, renderer(parts(marks, [])))
    added = skeleton[start:end].strip()
    if skeleton.count(placeholder) != 1 or placeholder not in added or skeleton.find(marks[-1]) < start:
        raise ModelError(
            f"prompt {prompt.id!r}: the model's chat template does not put one {placeholder} before the instruction "
            "for a picture."
        )
    return _Skeleton(skeleton.replace(added, SLOT, 1), found, added)


def _added(longer: str, shorter: str) -> Span:
    """Where a text has what another one lacks."""
    most = min(len(longer), len(shorter))
    start = next((i for i in range(most) if longer[i] != shorter[i]), most)
    tail = next((i for i in range(most - start) if longer[-1 - i] != shorter[-1 - i]), most - start)
    return start, len(longer) - tail


def _contents(prompt: Prompt, text: str, skeleton: str, marks: list[str]) -> dict[str, str]:
    """Every content as the template renders it, found by walking along the skeleton, which is rendered with marks."""
    order, frame = _frame(prompt, skeleton, marks)
    by_mark = dict(zip(marks, (m.content for m in prompt.messages), strict=True))
    spans = next(_walks(text, frame, [by_mark[mark] for mark in order]), None)
    if spans is None:
        raise ModelError(
            f"prompt {prompt.id!r}: the model's chat template changes the text of its messages beyond the "
            "white space at their ends, so no position in them can be named."
        )
    return {mark: text[start:end] for mark, (start, end) in zip(order, spans, strict=True)}


def _frame(prompt: Prompt, skeleton: str, marks: list[str]) -> tuple[list[str], list[str]]:
    """The marks in the order of a text, and what lies around and between them."""
    if any(skeleton.count(mark) != 1 for mark in marks):
        raise ModelError(
            f"prompt {prompt.id!r}: the model's chat template drops or repeats one of its messages; "
            "reduce the conversation to what the template knows."
        )
    order = sorted(marks, key=skeleton.index)
    frame: list[str] = []
    rest = skeleton
    for mark in order:
        before, _, rest = rest.partition(mark)
        frame.append(before)
    return order, [*frame, rest]


def _assembled(prompt: Prompt, skeleton: str, contents: Mapping[str, str], *, bare: bool) -> Rendered:
    """The text of a skeleton with every content at its mark."""
    order, frame = _frame(prompt, skeleton, list(contents))
    text, spans = frame[0], dict[str, Span]()
    for mark, following in zip(order, frame[1:], strict=True):
        spans[mark] = (len(text), len(text) + len(contents[mark]))
        text += contents[mark] + following
    marks = tuple(frame) if not bare or any(frame) else ()
    return Rendered(text, tuple(spans.values()), spans[_marks(prompt)[-1]], marks, spans.get(SLOT), bare)


def _walks(text: str, frame: list[str], contents: list[str], place: int = 0) -> Iterator[tuple[Span, ...]]:
    """Every way to read the text as frame and contents in turn; a template may strip a content or not."""
    if not text.startswith(frame[0], place):
        return
    start = place + len(frame[0])
    if not contents:
        if start == len(text):
            yield ()
        return
    raw = contents[0]
    for content in dict.fromkeys((raw, raw.strip(), raw.lstrip(), raw.rstrip())):
        end = start + len(content)
        if text.startswith(content, start):
            yield from (((start, end), *later) for later in _walks(text, frame[1:], contents[1:], end))
