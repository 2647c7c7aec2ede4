# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The tribunal, on a model that refuses and on one that does not
#
# Every published way of finding the "safety layers" gives a layer for any model that is asked, also for one that
# refuses nothing. `demo:policy` refuses harmful requests by citing its rules; `demo:base` is the same model before it
# was taught to. We ask all locators about both, and then ask the models themselves: put the states of a harmful prompt
# into its harmless twin, layer by layer, and see from where on the answer turns round.
#
# 48 prompts show the shape of the answer; `interp scan demo:policy` does it in full.

# %%
from pathlib import Path

from analyses.hearing import hear
from interp.cache import ActivationCache, Capture, plan_harvest, run_harvest
from interp.models.load import load
from interp.models.source import resolve
from interp.prompts import PromptSet
from interp.prompts.twins import bundled_twins

prompts = PromptSet("twins:test, first 24 pairs", bundled_twins("test").prompts[:48])


def harvested(name):
    planned = plan_harvest(load(resolve(name, notify=print)), prompts, Capture(positions=("t_inst", "t_post")))
    return planned.adapter, ActivationCache.open(run_harvest(planned, Path("../runs")))


policy, policy_cache = harvested("demo:policy")
base, base_cache = harvested("demo:base")

# %% [markdown]
# ## What do they do?
# `hear` lets a model answer, finds the words that its own refusals open with, and patches its twins. Families of
# refusals and the trial of a direction are left out here to save time.

# %%
import pandas as pd

heard = {
    name: hear(cache, prompts, adapter, families=(), directed=False, notify=print)
    for name, adapter, cache in (("demo:policy", policy, policy_cache), ("demo:base", base, base_cache))
}
harmful = prompts.frame()["label"] == "harmful"
pd.DataFrame(
    {
        name: {
            "harmful refused": f"{one.refused[harmful].sum()} of {harmful.sum()}",
            "harmless refused": f"{one.refused[~harmful].sum()} of {(~harmful).sum()}",
            "its refusals open with": ", ".join(map(repr, one.words)) or "-",
        }
        for name, one in heard.items()
    }
)

# %% [markdown]
# ## The model that refuses
# Rows are locators, columns layers. Red means that a locator sets harmful prompts apart, white that it does not, pale
# that this is uncertain; a diamond is the onset with its interval.

# %%
from analyses import tribunal_study
from analyses.panel import Vocabulary
from interp.judges import as_refused
from interp.prompts.families import load_family
from probes.train import train_probe

words = Vocabulary.of(policy.tokenizer, load_family("apology"))
probe = train_probe(policy_cache, prompts, as_refused(heard["demo:policy"].behaviours), position="t_post")
about = {"prompts": prompts.digest, "code": "notebook", "seed": 0}
study = tribunal_study.run(
    policy_cache, policy.readout(), words, prompts, heard["demo:policy"], probe, provenance=about
)
for line in study.headlines:
    print("-", line)

# %%
figure, caption = study.figures["locator_heatmap"]
print(caption)
figure

# %% [markdown]
# Which of them read where the model *decides*? Patches say: below the layer at which what decides has come to t_post
# the states of the twin change nothing, above it they turn the answer round. Those of a stranger of the same kind
# change nothing anywhere.

# %%
figure, caption = study.figures["causal_heatmap"]
print(caption)
figure

# %%
study.tables["verdicts"][["locator", "onset", "onset_lo", "onset_hi", "flags"]].round(1)

# %% [markdown]
# ## The model that does not
# The same locators on `demo:base`, which answers everything. Those that read states separate harmful from harmless
# prompts here as well: they see harm, not refusal.

# %%
base_study = tribunal_study.run(base_cache, base.readout(), words, prompts, heard["demo:base"], None, provenance=about)
for line in base_study.headlines:
    print("-", line)

# %%
both = {
    name: one.tables["verdicts"].set_index("locator")["onset"]
    for name, one in (("demo:policy", study), ("demo:base", base_study))
}
pd.DataFrame(both).round(1)

# %% [markdown]
# ## What may be said
# A claim is made only when all of its controls pass; on a model that refuses nothing there is none to make.

# %%
for name, one in (("demo:policy", study), ("demo:base", base_study)):
    print(name, "-", [claim.verdict for claim in one.claims] or one.headlines[0])
