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
# # Does the guide make pictures safe?
#
# Text-guided alignment trains the projector so that a picture's states follow those of its caption, the harder the
# nearer a retrieved text is to that caption; refusal in text should then reach pictures. Three short trainings of
# `demo:llava` show how that is tested: captioning alone, the guide as its code was released, and the guide as it was
# published. A handful of steps on a few dozen pictures changes little; `interp tga train` and `interp tga eval` do it
# in full.

# %%
from dataclasses import replace
from pathlib import Path

from interp.models.load import load
from interp.models.projector.recipe import answer
from interp.models.runtime import Runtime
from interp.models.source import resolve
from interp.models.text_encoder import load_text_encoder
from interp.scenes.pictures import bundled_pairs
from interp.tga.preparation import more_texts, prepare

runs, question = Path("../runs"), "Describe this scene."
source = resolve("demo:llava", notify=print)
runtime = Runtime(dtype="fp32").resolve(source)
encoder = load_text_encoder("demo:minilm", notify=print)

everything = bundled_pairs(notify=print)
scenes = [p for p in everything if p.split == "train" and p.scene is not None]
seen = tuple(scenes[i] for i in range(0, len(scenes), len(scenes) // 32))[:32]
print(len(seen), "pictures to train on,", sum(p.label == "harmful" for p in seen), "of them harmful")

# %% [markdown]
# ## What training reads
# Every picture gets the text nearest to its caption that is not its caption. The vision tower's features of all
# pictures and the language model's states of all texts are harvested once and shared by the three trainings.

# %%
from interp.tga.variants import VARIANTS

texts = more_texts("scenes", [p.caption for p in everything])
options = {"arm": "captioned", "question": question, "retrieve_by": encoder, "texts": texts, "answer": answer}
prepared = {
    name: prepare(load(source, runtime), seen, runs, variant=VARIANTS[name], notify=print, **options)
    for name in ("no-guide", "released", "paper")
}
prepared["paper"].retrieved.head(8).round(2)

# %% [markdown]
# ## Training, with its gradients audited
# A guide that is computed outside of the graph is a number that trains nothing, and no loss curve shows it. The audit
# does: the share of the guide in the gradient on the projector.

# %%
import pandas as pd

from interp.tga.recipe import Recipe
from interp.tga.trainer import train

trained = {
    name: train(
        load(source, runtime).model,
        one.data,
        Recipe(VARIANTS[name], steps=4, batch=8, micro_batch=8, learning_rate=3e-4),
        Path("../trained") / name,
        name="demo:llava",
    )
    for name, one in prepared.items()
}
pd.DataFrame(
    {name: one.steps_table.dropna(subset=["guide_share"]).iloc[0][["guide", "guide_norm", "guide_share"]]
     for name, one in trained.items()}
).round(4)  # fmt: skip

# %%
from interp.models.projector_file import read_projector

none, released, paper = (read_projector(one.folder / "projector")[1] for one in trained.values())
print("released gives the projector of no-guide, to the bit:", all((none[n] == released[n]).all() for n in none))
print("paper gives another one:", any((none[n] != paper[n]).any() for n in none))

# %% [markdown]
# ## What does it do?
# Every training beside the model as it was, on pictures in a drawing style that nothing was trained on. No refusal of
# harmful pictures is shown without that of their harmless twins, and no alignment without its floor.

# %%
from analyses.cross_modal.arms import image_prompts
from analyses.cross_modal.session import Effort
from analyses.tga.evaluation import evaluate
from analyses.tga.runs import Run, read_run
from analyses.tga.study import run as compare

pictures = {p.id: p for p in everything if p.split == "test"}
twins = [p for p in pictures.values() if p.twin_of in pictures][::4][:8]
tested = tuple(dict.fromkeys(p for twin in twins for p in (pictures[twin.twin_of], twin)))
effort = Effort(answer_tokens=12)
found = [
    evaluate(
        one, replace(source, adapter=one.folder), runtime, tested, runs, question=question, answer=answer, effort=effort
    )
    for one in (Run(None), *(read_run(t.folder) for t in trained.values()))
]
about = {"prompts": image_prompts(tested, question).digest, "code": "notebook", "seed": 0}
study = compare(found, model="demo:llava", pairs="some of the test style", provenance=about)
for line in study.headlines:
    print("-", line)

# %%
figure, caption = study.figures["refusals"]
print(caption)
figure

# %%
figure, caption = study.figures["alignment"]
print(caption)
figure
