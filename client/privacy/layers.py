"""Layers that no proof for single examples covers are refused by name, with what to take instead."""

from torch import nn

from exchange.errors import UnsupportedModel

_UNMAPPED = (nn.GRU, nn.RNN, nn.RNNCellBase)  # vmap fails on them, in words that say nothing; torch 2.13 maps LSTM only


def refuse_batch_statistics(model: nn.Module) -> None:
    """Raise UnsupportedModel if a layer mixes the examples of a batch, or keeps statistics of them."""
    for name, layer in model.named_modules():
        running = isinstance(layer, nn.modules.instancenorm._InstanceNorm) and layer.track_running_stats
        if running or isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise UnsupportedModel(
                f"layer {name!r}: expected one that treats each example alone, got {type(layer).__name__}, which keeps "
                "statistics of the whole batch; replace it by GroupNorm"
            )


def refuse_unmapped(model: nn.Module) -> None:
    """Raise UnsupportedModel if torch cannot take a layer's gradient example by example."""
    for name, layer in model.named_modules():
        if isinstance(layer, _UNMAPPED):
            raise UnsupportedModel(
                f"layer {name!r}: expected one whose gradient torch can take example by example, got "
                f"{type(layer).__name__}; replace it by LSTM"
            )
