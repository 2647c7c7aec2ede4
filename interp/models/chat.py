"""A prompt as text: the model's own chat template, and where each message lies in what it renders."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from interp.errors import ModelError
from interp.prompts.prompt import Prompt

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as text: what the chat template makes of it, and where the message contents lie in it.

    Attributes:
        text: the whole text.
        spans: (start, end) in characters, one per message, in the order of the text.
        instruction: the span of the last user message.
        frame: the text of the template around and between the spans; empty for a model without a template.
    """

    text: str
    spans: tuple[Span, ...]
    instruction: Span
    frame: tuple[str, ...]


def render(tokenizer: Any, prompt: Prompt) -> Rendered:
    """The text of a prompt under the chat template, or the bare instruction where the model has none.

    Raises:
        ModelError: when the template refuses the conversation, drops a message or changes its text.
    """
    if not tokenizer.chat_template:
        return _bare(prompt)
    messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
    marks = [f"\u27e6message-{i}\u27e7" for i in range(len(messages))]
    marked = [{**m, "content": mark} for m, mark in zip(messages, marks, strict=True)]
    text, skeleton = _apply(tokenizer, prompt, messages), _apply(tokenizer, prompt, marked)
    return _locate(prompt, text, skeleton, marks)


def _apply(tokenizer: Any, prompt: Prompt, messages: list[dict[str, str]]) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except (TemplateError, ValueError, TypeError) as error:
        raise ModelError(f"prompt {prompt.id!r}: the model's chat template refuses it: {error}") from error


def _bare(prompt: Prompt) -> Rendered:
    if len(prompt.messages) > 1:
        raise ModelError(
            f"prompt {prompt.id!r}: has {len(prompt.messages)} messages, but this model has no chat "
            "template; give single instructions, or a model with a template."
        )
    span = (0, len(prompt.text))
    return Rendered(prompt.text, (span,), span, ())


def _locate(prompt: Prompt, text: str, skeleton: str, marks: list[str]) -> Rendered:
    """Finds every message in the text by walking along the skeleton, which is rendered with marks."""
    if any(skeleton.count(mark) != 1 for mark in marks):
        raise ModelError(
            f"prompt {prompt.id!r}: the model's chat template drops or repeats one of its messages; "
            "reduce the conversation to what the template knows."
        )
    order = sorted(range(len(marks)), key=lambda i: skeleton.index(marks[i]))
    frame: list[str] = []
    rest = skeleton
    for i in order:
        before, _, rest = rest.partition(marks[i])
        frame.append(before)
    frame.append(rest)
    spans = next(_walks(text, frame, [prompt.messages[i].content for i in order]), None)
    if spans is None:
        raise ModelError(
            f"prompt {prompt.id!r}: the model's chat template changes the text of its messages beyond the "
            "white space at their ends, so no position in them can be named."
        )
    return Rendered(text, spans, spans[order.index(len(marks) - 1)], tuple(frame))


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
