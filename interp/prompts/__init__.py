from interp.prompts.files import read_prompts
from interp.prompts.hub import load_prompts, read_hub
from interp.prompts.pairs import Pair, read_pairs
from interp.prompts.prompt import Message, Prompt, PromptSet, user_prompt
from interp.prompts.twins import bundled_twins, subtle_twins

__all__ = [
    "Message",
    "Pair",
    "Prompt",
    "PromptSet",
    "bundled_twins",
    "load_prompts",
    "read_hub",
    "read_pairs",
    "read_prompts",
    "subtle_twins",
    "user_prompt",
]
