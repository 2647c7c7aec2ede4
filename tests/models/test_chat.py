import pytest

from interp.errors import ModelError
from interp.models.encoding import Encoder
from interp.prompts.prompt import Message, Prompt
from tests.models.conversations import encode, talk, tokenizer_of
from tests.models.vocabularies import byte_level


@pytest.mark.parametrize(("kind", "name"), [("bytes", "gemma"), ("pieces", "gemma")])
def test_a_refused_role_names_the_prompt(kind: str, name: str) -> None:
    with pytest.raises(ModelError, match=r"prompt 'p'.*System role not supported"):
        encode(tokenizer_of(kind, name), talk("Hello", system="You are kind."))


def test_roles_out_of_turn_are_refused() -> None:
    prompt = Prompt("twice", (Message("user", "a"), Message("user", "b")))
    with pytest.raises(ModelError, match=r"prompt 'twice'.*must alternate"):
        encode(byte_level("llama_2"), prompt)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ messages[-1]['content'] }}", "drops or repeats"),
        ("{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}", "drops or repeats"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "drops or repeats"),
        ("{% for m in messages %}{{ m['content'] | replace('bread', 'cake') }};{% endfor %}", "changes the text"),
        ("{% for m in messages %}{{ m['content'].split('r')[-1] }};{% endfor %}", "changes the text"),
        ("{{ messages[0]['content'] + 1 }}", "refuses it"),
        ("{% for m in messages %}", "refuses it"),
    ],
)
def test_templates_that_rewrite_a_message_are_refused(template: str, why: str) -> None:
    tokenizer = byte_level("chatml")
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=f"prompt 'p'.*{why}"):
        encode(tokenizer, talk("other", "other", "bake bread"))


def test_a_template_that_strips_and_adds_the_same_white_space() -> None:
    tokenizer = byte_level("chatml")
    tokenizer.chat_template = "{% for m in messages %}[{{ m['content'] | trim }}\n]{% endfor %}"
    for content in ("bread\n", "\nbread\n\n", "bread"):
        prompt = talk(content)
        rendered = Encoder(tokenizer).render(prompt)
        start, end = rendered.instruction
        assert rendered.text[start:end].strip() == "bread"
        assert "".join((rendered.frame[0], rendered.text[start:end], rendered.frame[1])) == rendered.text


@pytest.mark.parametrize("strip", ["strip", "lstrip", "rstrip"])
def test_a_template_may_strip_either_end(strip: str) -> None:
    tokenizer, content = byte_level("chatml"), " \n bread \n"
    tokenizer.chat_template = "{% for m in messages %}[{{ m['content']." + strip + "() }}]{% endfor %}"
    rendered = Encoder(tokenizer).render(talk(content))
    start, end = rendered.instruction
    assert rendered.text[start:end] == getattr(content, strip)()


def test_messages_that_are_stripped_in_different_ways() -> None:
    """Llama 2 strips system message and instruction as one."""
    prompt = talk(" bread \n", system=" kind \n")
    rendered = Encoder(byte_level("llama_2")).render(prompt)
    assert [rendered.text[a:b] for a, b in rendered.spans] == [" kind \n", " bread"]
    assert rendered.instruction == rendered.spans[-1]


def test_messages_in_another_order() -> None:
    """Mistral puts the system message into the last of the user's turns."""
    rendered = Encoder(byte_level("mistral")).render(talk("one", "two", "three", system="kind"))
    assert [rendered.text[a:b] for a, b in rendered.spans] == ["one", "two", "kind", "three"]
    assert rendered.text[slice(*rendered.instruction)] == "three"
    assert len(rendered.frame) == 5
