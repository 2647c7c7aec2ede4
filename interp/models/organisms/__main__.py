"""The command line of the organisms.

python -m interp.models.organisms train policy --out interp/models/adapters
python -m interp.models.organisms measure policy
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from interp.models.demo import adapters_folder
from interp.models.organisms.measure import measure, remeasure
from interp.models.organisms.recipe import ORGANISMS
from interp.models.organisms.train import train
from interp.models.source import resolve


def main(arguments: Sequence[str] | None = None) -> None:
    """``train NAME`` writes an adapter with its record; ``measure NAME`` prints its held-out rates."""
    parser = argparse.ArgumentParser(prog="python -m interp.models.organisms", description=__doc__)
    parser.add_argument("action", choices=["train", "measure", "remeasure"], help="remeasure rewrites the record")
    parser.add_argument("name", choices=list(ORGANISMS))
    parser.add_argument("--out", type=Path, default=adapters_folder())
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    recipe = replace(ORGANISMS[given.name], seed=given.seed)
    if given.action == "train":
        folder = train(recipe, given.out)
        print((folder / "training.json").read_text("utf-8"))
    elif given.action == "remeasure":
        remeasure(recipe, given.out / recipe.name)
    else:
        print(json.dumps(measure(resolve(f"demo:{given.name}", notify=print), recipe), indent=1))


if __name__ == "__main__":
    main()
