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
# # Refusal without "sorry"
#
# `demo:policy` refuses by citing its rules and never says sorry. Do rules that watch for the word notice? Does a probe
# that sees no word? A small cache, 120 prompts, is enough to see the shape of the answer; `interp sensitivity` asks all
# demo models on more prompts.

# %%
from pathlib import Path

from analyses.subjects import measure
from interp.models.runtime import Runtime
from interp.models.source import resolve
from interp.prompts.twins import bundled_twins

prompts = bundled_twins("validation")
source = resolve("demo:policy", notify=print)
subject = measure(source, Runtime().resolve(source), prompts, Path("../runs"), notify=print)
subject.prompts.frame().assign(response=subject.responses, behaviour=subject.behaviours)[
    ["label", "text", "response", "behaviour"]
].head(6)

# %% [markdown]
# ## What did the model do?
# Labels are behaviour. The table of what was asked against what was done says what a probe can learn at all: with an
# empty cell, refusing and harm can not be told apart.

# %%
from interp.judges import as_refused, tally
from probes.cells import Cells

refused = as_refused(subject.behaviours)
print(tally(subject.behaviours))
Cells.of(prompts.prompts, subject.refused)

# %% [markdown]
# ## Rules that watch for words
# The two published rules fire at some layer or never. Keyword lists read the answer.

# %%
import numpy as np
import pandas as pd

fired = {rule: np.isfinite(subject.readings[rule]) for rule in ("tga_paper", "tga_released")}
fired |= {name: subject.verdicts[name].to_numpy() for name in ("gcg", "heretic", "harmbench")}
pd.DataFrame(
    {
        name: {"fires on refused": hit[subject.refused].mean(), "fires on complied": hit[~subject.refused].mean()}
        for name, hit in fired.items()
    }
).T.round(2)

# %% [markdown]
# ## A probe that sees no word
# Every category is left out in turn; layer, penalty and threshold are chosen on other categories. The headline is the
# excess over the best baseline that needs no model.

# %%
from probes.train import train_probe

trained = train_probe(subject.cache, prompts, refused, position="t_post")
excess = trained.evidence.excess
print(f"AUROC {excess.probe.value:.3f} [{excess.probe.lo:.3f}, {excess.probe.hi:.3f}]")
print(f"excess over {excess.best}: {excess.value.value:+.3f} [{excess.value.lo:+.3f}, {excess.value.hi:+.3f}]")
for control in trained.evidence.controls:
    print("passed" if control.passed else "FAILED", control.name, "-", control.found)
trained.claim.verdict

# %% [markdown]
# The claim is not established: no random twin of the model was measured here, and with 120 prompts little else is sure.
# `interp probe train demo:policy held-out` does it in full.
#
# ## Where along the layers?

# %%
from analyses.locators.probe_onset import probe_onset
from interp import figures

curve = probe_onset(trained, subject.cache.layers)
print(curve.onset())
profile = curve.table(family=subject.family, position="t_post").assign(group=subject.name)
figures.profiles(profile, unit="AUROC of refused against complied")
