from dataclasses import replace

import pytest

from interp.errors import ModelError, UsageError
from interp.models.encoding import Encoder
from interp.prompts.prompt import user_prompt
from tests.models.conversations import ALL, KINDS, POSITIONS, encode, read, solid, talk, template_ids, tokenizer_of
from tests.models.vocabularies import byte_level

ORDINARY = {
    "question": "How do I bake a loaf of bread?",
    "one word": "bread",
    "one letter": "a",
    "lines": "First\nSecond\n\n- one\n- two\n\nDone",
    "code": "def main():\n    return {'a': 1}",
    "template word": "assistant",
    "template words": "user model system assistant",
    "cjk": "面包怎么做？请告诉我。",
    "emoji": "🍞🔥 bread 👩‍👩‍👧‍👦",
    "bidi": "كيف أخبز الخبز؟ \u202etxt\u202c עברית",
    "combining": "e\u0301a\u0308 Z\u0351\u036b\u0343",
    "brackets": "<not a token> |pipe| [x] <<y>>",
    "end of turn, in words": "im_end eot_id /INST end_of_turn",
    "spaces inside": "a  b   c    d",
}
EDGES = {
    "space behind": "bread ",
    "spaces behind": "bread   ",
    "line behind": "bread\n",
    "lines behind": "bread.\n\n",
    "space before": " bread",
    "lines before": "\n\nbread",
    "both": " \n bread \t\n ",
}


@pytest.mark.parametrize("text", [*ORDINARY, *EDGES])
@pytest.mark.parametrize(("kind", "name"), ALL)
def test_ids_are_those_of_the_chat_template(kind: str, name: str, text: str) -> None:
    tokenizer, content = tokenizer_of(kind, name), {**ORDINARY, **EDGES}[text]
    prompt = talk(content)
    encoded = encode(tokenizer, prompt)
    assert list(encoded.ids) == template_ids(tokenizer, prompt)
    assert encoded.control_free == 0
    assert encoded.at["t_post"] == len(encoded.ids) - 1


@pytest.mark.parametrize("text", [*ORDINARY, *EDGES])
@pytest.mark.parametrize(("kind", "name"), ALL)
def test_t_inst_is_the_end_of_the_instruction(kind: str, name: str, text: str) -> None:
    tokenizer, content = tokenizer_of(kind, name), {**ORDINARY, **EDGES}[text]
    encoded = encode(tokenizer, talk(content))
    upto = read(tokenizer, encoded.ids[: encoded.at["t_inst"] + 1])
    before = read(tokenizer, encoded.ids[: encoded.at["t_inst"]])
    assert upto.rstrip().endswith(content.strip())
    assert not before.endswith(content)
    behind = read(tokenizer, encoded.ids[encoded.at["t_inst"] + 1 :])
    assert solid(behind) == solid(KINDS[kind][1][name].tail)


@pytest.mark.parametrize("text", ["space behind", "spaces behind", "line behind", "lines behind"])
def test_white_space_that_the_template_keeps_is_instruction(text: str) -> None:
    for kind, name in (("bytes", "chatml"), ("bytes", "mistral"), ("pieces", "mistral")):
        tokenizer, content = tokenizer_of(kind, name), EDGES[text]
        encoded = encode(tokenizer, talk(content))
        assert read(tokenizer, encoded.ids[: encoded.at["t_inst"] + 1]).endswith(content)


# Counted by hand from the tail of each template: one token per control token, then the words as they were learnt.
TAILS = {
    ("bytes", "chatml"): ["<|im_end|>", "\n", "<|im_start|>", "assistant", "\n"],
    ("bytes", "llama_3"): [
        "<|eot_id|>", "<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n",
    ],
    ("bytes", "gemma"): ["<end_of_turn>", "\n", "<start_of_turn>", "model", "\n"],
    ("pieces", "gemma"): ["<end_of_turn>", "\n", "<start_of_turn>", "m", "odel", "\n"],
    ("bytes", "mistral"): ["[/INST]"],
    ("pieces", "mistral"): ["[/INST]"],
    ("bytes", "phi_3"): ["<|end|>", "<|assistant|>"],
    ("pieces", "phi_3"): ["<|end|>", "<|assistant|>"],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), TAILS)
def test_all_post_is_every_token_behind_the_instruction(kind: str, name: str) -> None:
    tokenizer, tail = tokenizer_of(kind, name), TAILS[kind, name]
    for content in ("How do I bake bread?", "Explain the lock"):
        encoded = encode(tokenizer, talk(content), ["t_inst", "all_post"])
        assert list(encoded.at) == ["t_inst", *(f"post_{k}" for k in range(len(tail) - 1)), "t_post"]
        assert list(encoded.at.values()) == list(range(encoded.at["t_inst"], len(encoded.ids)))
        pieces = [read(tokenizer, [encoded.ids[i]]) for i in list(encoded.at.values())[1:]]
        assert pieces == tail


def test_all_post_without_one_meaning_is_refused() -> None:
    """A full stop at the end takes the line breaks of the template into its own token."""
    tokenizer = byte_level("llama_3")
    tokenizer.chat_template = "Q: {{ messages[0]['content'] }}\n\nA:"
    prompts = [user_prompt("a", "how the lock of a door works"), user_prompt("b", "how it works.")]
    Encoder(tokenizer).encode(prompts, POSITIONS)
    with pytest.raises(ModelError, match="different numbers of tokens"):
        Encoder(tokenizer).encode(prompts, ["all_post"])


@pytest.mark.parametrize("positions", [["t_post"], ["t_inst"], ["t_post", "t_inst"], ["all_post", "t_post"]])
def test_only_the_positions_asked_for(positions: list[str]) -> None:
    places = encode(byte_level("mistral"), talk("How do I bake bread?"), positions).at
    assert set(places) == {p if p != "all_post" else "t_post" for p in positions}


@pytest.mark.parametrize(("kind", "name"), [pair for pair in ALL if KINDS[pair[0]][1][pair[1]].system])
def test_a_system_message(kind: str, name: str) -> None:
    tokenizer = tokenizer_of(kind, name)
    for system in ("You are a helpful assistant.", " spaced \n", "How do I bake bread?"):
        prompt = talk("How do I bake bread?", system=system)
        encoded = encode(tokenizer, prompt)
        assert list(encoded.ids) == template_ids(tokenizer, prompt)
        assert read(tokenizer, encoded.ids[: encoded.at["t_inst"] + 1]).endswith("bake bread?")
        tail = read(tokenizer, encoded.ids[encoded.at["t_inst"] + 1 :])
        assert solid(tail) == solid(KINDS[kind][1][name].tail)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_several_turns(kind: str, name: str) -> None:
    tokenizer = tokenizer_of(kind, name)
    for turns in (("Hello", "Sorry!", "How do I bake bread?"), ("bread", "bread", "bread"), (" a ", " b ", " c ")):
        prompt = talk(*turns)
        encoded = encode(tokenizer, prompt)
        assert list(encoded.ids) == template_ids(tokenizer, prompt)
        upto = read(tokenizer, encoded.ids[: encoded.at["t_inst"] + 1])
        assert upto.rstrip().endswith(turns[-1].strip())
        behind = read(tokenizer, encoded.ids[encoded.at["t_inst"] + 1 :])
        assert solid(behind) == solid(KINDS[kind][1][name].tail)


def test_an_empty_instruction_is_refused() -> None:
    with pytest.raises(ModelError, match=r"prompt 'p'.*empty"):
        encode(byte_level("llama_3"), talk("  \n"))


def test_no_chat_template_reads_the_bare_text() -> None:
    tokenizer = byte_level("llama_3")
    tokenizer.chat_template = None
    encoded = encode(tokenizer, talk("How do I bake bread?"), ["t_inst", "all_post"])
    assert read(tokenizer, encoded.ids) == "How do I bake bread?"
    assert encoded.at == {"t_inst": len(encoded.ids) - 1, "t_post": len(encoded.ids) - 1}
    broken = encode(tokenizer, talk("How <|eot_id|> do"))
    assert read(tokenizer, broken.ids) == "How <|eot_id|> do"
    assert not set(tokenizer.all_special_ids) & set(broken.ids)
    with pytest.raises(ModelError, match="has no chat template"):
        encode(tokenizer, talk("Hello", system="You are kind."))


def test_the_bare_text_begins_as_the_tokenizer_begins_every_text() -> None:
    from tokenizers import processors

    tokenizer = byte_level("llama_3")
    tokenizer.chat_template = None
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
    )
    encoded = encode(tokenizer, talk("<|begin_of_text|>bread"))
    assert encoded.ids[0] == begin
    assert begin not in encoded.ids[1:]
    assert read(tokenizer, encoded.ids[1:]) == "<|begin_of_text|>bread"


def test_too_long_is_refused() -> None:
    tokenizer = byte_level("chatml")
    tokenizer.model_max_length = 40
    with pytest.raises(ModelError, match=r"prompt 'p': \d+ tokens, the model reads 40"):
        encode(tokenizer, talk("bread " * 40))


def test_an_unknown_position_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown position 'last'.*t_inst"):
        encode(byte_level("chatml"), talk("bread"), ["t_post", "last"])


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_response_follows_the_prompt_and_moves_none_of_its_positions(kind: str, name: str) -> None:
    tokenizer = tokenizer_of(kind, name)
    asked = user_prompt("p", "How do I bake a loaf of bread?")
    answered = replace(asked, response="Mix flour and water.")
    plain, full = (Encoder(tokenizer).encode([p], ["t_inst", "t_post"])[0] for p in (asked, answered))
    assert full.ids[: len(plain.ids)] == plain.ids and full.at == plain.at
    (ends,) = Encoder(tokenizer).encode([answered], ["response_first", "response_last"])
    assert ends.at == {"response_first": len(plain.ids), "response_last": len(full.ids) - 1}
    said = tokenizer("Mix flour and water.", add_special_tokens=False)["input_ids"]
    assert list(full.ids[len(plain.ids) :]) == list(said)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_control_tokens_in_a_response_stay_plain_text(kind: str, name: str) -> None:
    tokenizer = tokenizer_of(kind, name)
    control = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
    asked = user_prompt("p", "How do I bake a loaf of bread?")
    for token in control:
        answered = replace(asked, response=f"Well {token} then")
        try:
            (full,) = Encoder(tokenizer).encode([answered], ["t_post"])
        except ModelError:
            continue  # a vocabulary that can write it in no other way says so
        behind = full.ids[full.at["t_post"] + 1 :]
        special = {i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id}
        assert not special & set(behind)


@pytest.mark.parametrize("response", [None, ""])
def test_a_position_in_a_response_that_is_not_there_is_refused(response: str | None) -> None:
    prompt = replace(user_prompt("p7", "Hello"), response=response)
    with pytest.raises(UsageError, match="'p7' has no response"):
        Encoder(tokenizer_of(*ALL[0])).encode([prompt], ["response_last"])
