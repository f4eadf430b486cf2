"""How far from the head each part of a network lies, and how much slower it learns for that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def lr_shares(
    model: nn.Module, head: nn.Module, backbone_lr_factor: float, layer_decay: float
) -> dict[nn.Parameter, float]:
    """Returns what the learning rate is multiplied by for each parameter outside `head`; nothing where it is 1 for all.

    It is backbone_lr_factor * layer_decay^d for a block that lies d blocks before the head: d is 1 for the last one.
    So it is in BEiT (https://arxiv.org/abs/2106.08254, appendix) and in timm's param_groups_layer_decay.
    """
    if backbone_lr_factor == layer_decay == 1:
        return {}
    blocks = blocks_in_order(model, head)
    return {
        parameter: backbone_lr_factor * layer_decay ** (len(blocks) - position)
        for position, block in enumerate(blocks)
        for parameter in block
    }


def blocks_in_order(model: nn.Module, head: nn.Module) -> list[list[nn.Parameter]]:
    """Returns the parameters of `model` outside `head`, block by block, in the order in which it defines them.

    A block is a module with several layers that the network has more of, or that stands in a list of modules: a
    residual block, an attention block. A layer outside such blocks, as the first convolution, is a block of its own.
    What has no weight matrix or kernel (norms, position embeddings, class tokens) belongs to the block before it, or to
    the first one where there is none before.
    """
    blocks: list[list[nn.Parameter]] = [[]]
    seen = {id(parameter) for parameter in head.parameters()}
    holds_layer = False  # the last of `blocks`
    for parameters, is_layer in _pieces(model, head):
        own = [parameter for parameter in parameters if id(parameter) not in seen]  # tied weights lie where they began
        seen |= {id(parameter) for parameter in own}
        if own and is_layer and holds_layer:
            blocks.append([])
        blocks[-1] += own
        holds_layer = holds_layer or (bool(own) and is_layer)
    return blocks if blocks[0] else []


def _pieces(model: nn.Module, head: nn.Module) -> Iterator[tuple[list[nn.Parameter], bool]]:
    """Yields the parameters of each block, layer and norm, in their order, and whether they are a block or a layer."""
    types = Counter(type(module) for module in model.modules())
    of_backbone = _num_matrices(model) - _num_matrices(head)

    def is_block(module: nn.Module, in_list: bool) -> bool:
        one_of_many = (in_list or types[type(module)] > 1) and _num_matrices(module) < of_backbone
        return _has_several_layers(module) and one_of_many and not _holds_blocks(module)

    def pieces(module: nn.Module) -> Iterator[tuple[list[nn.Parameter], bool]]:
        own = list(module.parameters(recurse=False))
        is_leaf = next(module.children(), None) is None
        yield own, is_leaf and _num_matrices(module) > 0
        for child in module.children():
            if child is head:
                continue
            if is_block(child, _is_list(module)):
                yield list(child.parameters()), True
            else:
                yield from pieces(child)

    return pieces(model)


def _has_several_layers(module: nn.Module) -> bool:
    """Tells whether a module computes with several weight matrices or kernels, and is more than a list of modules."""
    return _num_matrices(module) > 1 and not isinstance(module, CONTAINERS)


def _holds_blocks(module: nn.Module) -> bool:
    """Tells whether a module is a stage: somewhere in it stands a list with several blocks."""
    return any(sum(map(_has_several_layers, part.children())) > 1 for part in module.modules() if _is_list(part))


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, CONTAINERS) or len({type(child) for child in module.children()}) == 1


def _num_matrices(module: nn.Module) -> int:
    """Returns how many weight matrices and convolution kernels a module has."""
    return sum(parameter.ndim > 1 for parameter in module.parameters())
