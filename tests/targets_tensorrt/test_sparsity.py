"""2:4 sparsity is seen in float and INT8 weights, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import network, with_weight
from numpy.typing import NDArray
from qdq import with_qdq

from edgeres.quantization.graph import normalized
from edgeres.targets.tensorrt.sparsity import is_sparse, sparse_layers


def pruned(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns a weight with the third and fourth of every four input channels zero."""
    kept = np.arange(weight.shape[1]) % 4 < 2
    return weight * kept.reshape(1, -1, 1, 1)


@given(st.integers(0, 3), st.integers(0, 1))
def test_one_weight_too_many_is_enough(output: int, group: int) -> None:
    """Three of four, at one output channel and one position of the kernel."""
    weight = pruned(np.ones((4, 8, 3, 3), np.float32))
    assert is_sparse(weight)
    weight[output, 4 * group + 2, 1, 1] = 1
    assert not is_sparse(weight)


def test_groups_are_of_input_channels() -> None:
    """Zeros along the kernel or the output channels do not make it sparse."""
    weight = np.ones((8, 8, 4, 4), np.float32)
    weight[..., 2:] = 0
    weight[2:] = 0
    assert not is_sparse(weight)


@pytest.mark.parametrize("channels", [3, 6])
def test_channels_that_make_no_groups_are_dense(channels: int) -> None:
    """The stem's three input channels have no sparse kernel."""
    assert not is_sparse(np.zeros((4, channels, 3, 3), np.float32))


@pytest.mark.parametrize("int8", [False, True])
def test_only_the_pruned_layer_is_sparse(int8: bool) -> None:
    """By name, also behind DequantizeLinear, where quantization leaves zeros at zero."""
    model = normalized(with_weight(network("identity"), "main1_w", pruned))
    if int8:
        model = with_qdq(model)
    sparse = sparse_layers(model)
    assert list(sparse.values()) == [False, True, False]
