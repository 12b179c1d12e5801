"""Layers that are hard to merge or to write: what images in the wild hold, and what the formats allow.

`LAYER_SETS` names them all.  Each says where `umoci unpack` shows something else than our flattening, and why;
everything that is not listed there must be equal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from support.layers import layers_of_the_wild, layers_to_merge, layers_to_write
from support.layers.layer_set import LayerSet

LAYER_SETS: dict[str, Callable[[], LayerSet]] = {
    name: made
    for module in (layers_to_merge, layers_to_write, layers_of_the_wild)
    for name, made in vars(module).items()
    if getattr(made, "__module__", "") == module.__name__ and not name.startswith("_") and name != "chance"
}
LAYER_SETS |= {f"chance_{seed}": partial(layers_to_merge.chance, seed) for seed in range(8)}
