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
# # From a model to the heatmap, and what the sorry-rules miss
#
# `demo:apology` is a small chat model taught to refuse harmful requests with an apology. We harvest its states once,
# read them through the logit lens, and ask two published rules where it decides to refuse.

# %%
from interp.models.load import load
from interp.models.source import resolve
from interp.prompts import PromptSet
from interp.prompts.twins import bundled_twins

prompts = PromptSet("twins:test, first 24 pairs", bundled_twins("test").prompts[:48])
adapter = load(resolve("demo:apology", notify=print))
prompts.frame().head(4)

# %% [markdown]
# ## Harvest once
# Two prompts of a twin differ in one concept. The cache keeps the residual stream of every layer at the last token of
# the instruction and at every template token after it. Running this cell again computes nothing.

# %%
from interp.cache import ActivationCache, Capture, plan_harvest, run_harvest

planned = plan_harvest(adapter, prompts, Capture(positions=("t_inst", "all_post")))
cache = ActivationCache.open(run_harvest(planned, "../runs"))
cache

# %%
cache.residuals(layer=20, position="t_post").shape

# %% [markdown]
# ## Scan
# The readout is the model's own final norm and head; the lexicon is what refusal words are in its tokenizer.

# %%
from analyses import scan
from interp.models.lexicon import compile_lexicon
from interp.prompts.families import load_family

lexicon = compile_lexicon(adapter.tokenizer, load_family("apology"))
study = scan.run(cache, adapter.readout(), lexicon, prompts, position_tokens=planned.position_tokens)
for line in study.headlines:
    print("-", line)

# %%
figure, caption = study.figures["position_heatmap"]
print(caption)
figure

# %%
figure, caption = study.figures["rules"]
print(caption)
figure

# %% [markdown]
# ## What the rules miss
# The same scan on `demo:base`, which does not refuse at all. A rule that fires here, or on harmless prompts, does not
# see refusal.

# %%
from interp.tables import onset_summary

base = load(resolve("demo:base", notify=print))
base_plan = plan_harvest(base, prompts, Capture(positions=("t_post",)))
base_cache = ActivationCache.open(run_harvest(base_plan, "../runs"))
base_study = scan.run(base_cache, base.readout(), compile_lexicon(base.tokenizer, load_family("apology")), prompts)
onset_summary(base_study.tables["onsets"])

# %%
onset_summary(study.tables["onsets"])

# %% [markdown]
# `tga_released` watches a capital "I", which opens many answers that refuse nothing: it fires everywhere. `tga_paper`
# asks for a "sorry" token and finds nothing where a refusal is worded otherwise. And neither says whether the model
# *uses* what can be read there. The ledger says what is established, and what is not:

# %%
for claim in (*study.claims, *base_study.claims):
    print("-", claim.verdict, "\n")
