"""Prompt sets in which the label shows in one aspect of the form only, or in none."""

import random
from dataclasses import replace

from interp.prompts import Prompt, PromptSet, user_prompt

VOCABULARY = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in ("", "n", "r", "s", "l")]


def sentence(rng, words=10, mark="."):
    return " ".join(rng.choice(VOCABULARY) for _ in range(words)).capitalize() + mark


def null(n=120, seed=0):
    """Half of the prompts are harmful; nothing else tells them apart."""
    rng = random.Random(seed)
    labels = ["harmful", "harmless"] * (n // 2)
    return [user_prompt(f"p-{i:04}", sentence(rng, rng.randint(6, 14)), label=labels[i]) for i in range(n)]


def said_as(prompt, text):
    return user_prompt(prompt.id, text, label=prompt.label)


def planted(surface, n=120, seed=0, share=1.0):
    """As `null`, but ``share`` of the harmful prompts differ in this surface."""
    rng = random.Random(seed + 1)
    return [_marked(surface, p, rng) if p.label == "harmful" and rng.random() < share else p for p in null(n, seed)]


def _marked(surface, p: Prompt, rng) -> Prompt:
    if surface == "length":
        return said_as(p, sentence(rng, rng.randint(15, 20)))
    if surface == "punctuation":
        return said_as(p, p.text[:-1] + "?")
    if surface == "words":
        words = p.text.split()
        return said_as(p, " ".join([*words[:3], "zyx", *words[4:]]))
    if surface == "template":
        return said_as(p, "Now tell me " + p.text.split(" ", 3)[3])
    if surface == "image":
        return replace(p, image=f"pictures/{p.id}.png")
    return replace(p, id=p.id.replace("p-", "other-"))


def prompt_set(prompts, name="planted"):
    return PromptSet(name, tuple(prompts))
