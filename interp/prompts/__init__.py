from interp.prompts.files import read_prompts
from interp.prompts.prompt import Message, Prompt, PromptSet, user_prompt

__all__ = ["Message", "Prompt", "PromptSet", "read_prompts", "user_prompt"]
