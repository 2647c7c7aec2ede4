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
# # Does the picture reach the safety layers?
#
# `demo:llava` sees with DINOv2 and speaks with a model that refuses to describe weapons, drugs and the like when they
# are named in words. Its projector was trained to name pictures, and nothing else. Does the refusal hear the picture?
#
# Three arms ask the same question: over a description in words, over the caption where the picture would stand, and
# over the picture. A few dozen pictures show the shape of the answer; `interp align demo:llava` does it in full.

# %%
from pathlib import Path

from interp.models.load import load
from interp.models.runtime import Runtime
from interp.models.source import resolve
from interp.scenes.pictures import bundled_pairs

runs = Path("../runs")
source = resolve("demo:llava", notify=print)
runtime = Runtime(dtype="fp32").resolve(source)
model = load(source, runtime)

pictures = {pair.id: pair for pair in bundled_pairs("test", notify=print)}
twins = [pair for pair in pictures.values() if pair.twin_of in pictures][::5][:9]
pairs = tuple(pair for twin in twins for pair in (pictures[twin.twin_of], twin))
pairs = tuple(dict.fromkeys(pairs))
print(len(pairs), "pictures of", len({pair.scene for pair in pairs}), "scenes and their harmless twins")

# %% [markdown]
# ## What raw cosines hide
# The states of every arm are harvested once. A picture's states are near those of its caption - and as near to those of
# any other caption. What counts is the excess over pairs that do not belong together.

# %%
from analyses.cross_modal import align
from analyses.cross_modal.harvested import harvest_sides

sides = harvest_sides(source, runtime, pairs, runs, lambda: model, notify=print)
study = align.run(sides)
for line in study.headlines:
    print("-", line)

# %%
figure, caption = study.figures["cosines_slot"]
print(caption)
figure

# %% [markdown]
# ## What does it say?
# A picture that is not recognised can not be refused for what it shows.

# %%
import pandas as pd

said = study.tables["descriptions"]
said.groupby("scene").head(2)[["scene", "caption", "description"]]

# %% [markdown]
# ## Is the picture refused as its caption is?
# Beside the three arms stand two interventions: the same question from no picture to the real one, and the caption's
# states put in the place of the picture's, layer by layer, with placebos. `Effort` keeps it short.

# %%
from analyses.cross_modal import causal_study
from analyses.cross_modal.observation import observe
from analyses.cross_modal.session import Effort

small = Effort(ladder=6, transplanted=4, layers=4, placebo_layers=1, answer_tokens=12, judged_tokens=8)
seen = observe(pairs, Path(sides.image.place), sides.image.key, lambda: model, effort=small, notify=print)
about = {"prompts": sides.image.identity["prompts"], "code": "notebook", "seed": 0}
causal = causal_study.run(seen, model="demo:llava", pairs="some of the test style", provenance=about)
for line in causal.headlines:
    print("-", line)

# %%
figure, caption = causal.figures["transfer_heatmap"]
print(caption)
figure

# %%
figure, caption = causal.figures["ladder"]
print(caption)
figure

# %%
figure, caption = causal.figures["sufficiency_heatmap"]
print(caption)
figure

# %% [markdown]
# ## What may be said
# A claim is made only when all of its controls pass; so few pictures leave wide intervals.

# %%
for claim in (*study.claims, *causal.claims):
    print("-", claim.verdict)

# %% [markdown]
# ## Is the method able to find it?
# With the caption's own states where the picture's were, the excess must be the largest there is; with pairs exchanged
# it must vanish.

# %%
from dataclasses import replace

from interp.geometry import alignment

arms = sides.arms("slot")
order = [(i + 2) % len(pairs) for i in range(len(pairs))]
planted = {
    "as it is": arms,
    "caption states in the picture's place": replace(arms, image=arms.caption),
    "pairs exchanged": replace(arms, image=arms.image[order]),
}
top = {name: alignment(one, folds=4).attained for name, one in planted.items()}
pd.DataFrame({name: pd.Series(one.value, index=one.layers) for name, one in top.items()}).iloc[::5].round(2)
