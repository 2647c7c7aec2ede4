"""The command line of the projectors.

python -m interp.models.projector train llava --work /tmp/llava
python -m interp.models.projector measure llava
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp.models.demo import PROJECTOR, RECORD, projectors_folder
from interp.models.llava import llava_folder, save_llava
from interp.models.projector.measure import measure
from interp.models.projector.processor import image_processor
from interp.models.projector.recipe import RECIPES, ProjectorRecipe
from interp.models.projector.train import train
from interp.models.source import resolve
from interp.models.tower import tower_folder
from interp.scenes.pictures import bundled_pairs, pictures_folder


def main(arguments: Sequence[str] | None = None) -> None:
    """``train NAME`` writes a projector with its record; ``measure NAME`` prints what the finished model names."""
    parser = argparse.ArgumentParser(prog="python -m interp.models.projector", description=__doc__)
    parser.add_argument("action", choices=["train", "measure"])
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--work", type=Path, default=Path("projector"), help="features, checkpoints")
    parser.add_argument("--out", type=Path, default=projectors_folder())
    given = parser.parse_args(arguments)
    if given.action == "train":
        _train(RECIPES[given.name], given.work, given.out)
    else:
        folder = llava_folder(f"demo:{given.name}", notify=_say)
        print(json.dumps(measure(folder, bundled_pairs(notify=_say)), indent=1))


def _train(recipe: ProjectorRecipe, work: Path, out: Path) -> None:
    started = time.perf_counter()
    pairs, tower = bundled_pairs(notify=_say), tower_folder(notify=_say)
    if recipe.projector_of:
        taken = load_file(out / recipe.projector_of / PROJECTOR)
        _save(taken, recipe, out / recipe.name, tower, seconds=0)
        return
    from transformers import Dinov2Model

    sight = Dinov2Model.from_pretrained(tower, dtype=torch.float32).eval()
    projector = train(recipe, pairs, sight, image_processor(recipe.pixels), work, _say)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in projector.folded().items()}
    _save(weights, recipe, out / recipe.name, tower, seconds=round(time.perf_counter() - started))


def _save(weights: dict[str, Tensor], recipe: ProjectorRecipe, folder: Path, tower: Path, **known: Any) -> None:
    """Writes the projector, builds the model with it and records what that names."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / PROJECTOR)
    pairs, language = bundled_pairs(), resolve(recipe.language)
    where = f", in front of the language model of {recipe.projector_of}" if recipe.projector_of else ""
    with tempfile.TemporaryDirectory() as temporary:
        save_llava(Path(temporary), tower, language, weights, asdict(recipe))
        rates = measure(Path(temporary), pairs)
    record = {
        "recipe": asdict(recipe),
        "objective": f"captioning of single pictures{where}; no guide, no text states",
        "data": {
            "pictures": json.loads((pictures_folder() / "converted.json").read_text("utf-8"))["source"],
            "train": sum(p.split == "train" for p in pairs),
            "concepts": len({p.caption for p in pairs if p.split == "train"}),
            "scenes": "captioned like everything else; porn is a symbol only",
        },
        "language": asdict(language.identify()),
        **known,
        **rates,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
