"""Chat templates as published with real models, and the tokens each one needs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chat:
    """A template and its vocabulary.

    Attributes:
        template: the Jinja source.
        special: the control tokens.
        bos: begins every conversation; None when the model has none.
        eos: ends every answer.
        tail: the text between the instruction and the answer.
        markers: turn markers that the tokenizer does not call special.
        rstrip: whether the control tokens swallow the white space after them.
        system: whether the template knows system messages.
        strips: whether the user's text loses the white space at its ends.
    """

    template: str
    special: tuple[str, ...]
    bos: str | None
    eos: str
    tail: str
    markers: tuple[str, ...] = ()
    rstrip: bool = False
    system: bool = True
    strips: bool = False


# SmolLM2-Instruct; Qwen 2 differs in the default system message.
CHATML = Chat(
    template=(
        "{% for message in messages %}"
        "{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
        "{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    special=("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    bos=None,
    eos="<|im_end|>",
    tail="<|im_end|>\n<|im_start|>assistant\n",
)

# Llama-2-chat. Its turn markers are ordinary text, so nothing keeps a user from writing them.
LLAMA_2 = Chat(
    template=(
        "{% if messages[0]['role'] == 'system' %}"
        "{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
        "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
        "{% for message in loop_messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
        "{% endif %}"
        "{% if loop.index0 == 0 and system_message != false %}"
        "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}"
        "{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}"
        "{% endfor %}"
    ),
    special=("<s>", "</s>", "<unk>"),
    bos="<s>",
    eos="</s>",
    tail=" [/INST]",
    strips=True,
)

# Meta-Llama-3-Instruct.
LLAMA_3 = Chat(
    template=(
        "{% set loop_messages = messages %}{% for message in loop_messages %}"
        "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
        "+ message['content'] | trim + '<|eot_id|>' %}"
        "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
        "{{ content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    special=(
        "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    ),
    bos="<|begin_of_text|>",
    eos="<|eot_id|>",
    tail="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    strips=True,
)  # fmt: skip

# gemma-it (1 and 2). Its turn markers are added tokens that are not called special.
GEMMA = Chat(
    template=(
        "{{ bos_token }}"
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
        "{% else %}{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
    ),
    special=("<bos>", "<eos>", "<pad>", "<unk>"),
    markers=("<start_of_turn>", "<end_of_turn>"),
    bos="<bos>",
    eos="<eos>",
    tail="<end_of_turn>\n<start_of_turn>model\n",
    system=False,
    strips=True,
)

# Mistral-7B-Instruct-v0.3 without its tool calls: the system message stands before the last instruction.
MISTRAL = Chat(
    template=(
        '{%- if messages[0]["role"] == "system" %}'
        '{%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}'
        "{%- else %}{%- set loop_messages = messages %}{%- endif %}"
        "{{- bos_token }}"
        "{%- for message in loop_messages %}"
        '{%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}'
        '{{- raise_exception("After the optional system message, conversation roles must alternate") }}'
        "{%- endif %}"
        '{%- if message["role"] == "user" %}'
        "{%- if loop.last and system_message is defined %}"
        '{{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}'
        '{%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}'
        '{%- else %}{{- " " + message["content"]|trim + eos_token}}{%- endif %}'
        "{%- endfor %}"
    ),
    special=("<s>", "</s>", "<unk>", "[INST]", "[/INST]"),
    bos="<s>",
    eos="</s>",
    tail="[/INST]",
)

# Phi-3-mini-instruct: every control token swallows the line break behind it.
PHI_3 = Chat(
    template=(
        "{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
        "{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
        "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}"
        "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
    ),
    special=("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<s>", "</s>", "<unk>"),
    bos="<s>",
    eos="<|endoftext|>",
    tail="<|end|>\n<|assistant|>\n",
    rstrip=True,
)

BYTE_LEVEL = {
    "chatml": CHATML,
    "llama_2": LLAMA_2,
    "llama_3": LLAMA_3,
    "gemma": GEMMA,
    "mistral": MISTRAL,
    "phi_3": PHI_3,
}
SENTENCEPIECE = {k: BYTE_LEVEL[k] for k in ("llama_2", "gemma", "mistral", "phi_3")}
