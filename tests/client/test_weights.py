"""Between a torch module and a weight file: everything arrives as it left."""

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn import BatchNorm1d, Linear, Module, Sequential

from client.weights import floating, load_into, model_file
from exchange import tensors
from exchange.errors import InvalidTensorFile, TaskError


class Everything(Module):
    """A module with tensors of every kind."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).to(dtype)

        self.matrix = torch.nn.Parameter(draw(3, 4))
        self.double_precision = torch.nn.Parameter(draw(5, dtype=torch.float64))
        self.half_precision = torch.nn.Parameter(draw(5, dtype=torch.float16))
        self.brain = torch.nn.Parameter(draw(7, 2, dtype=torch.bfloat16))
        self.scalar = torch.nn.Parameter(draw(1)[0])
        self.transposed = torch.nn.Parameter(draw(4, 3).T)
        self.frozen = torch.nn.Parameter(draw(2), requires_grad=False)
        self.empty = torch.nn.Parameter(torch.zeros(0, 3))
        self.register_buffer("running", draw(3))
        self.register_buffer("count", torch.tensor(seed))
        self.register_buffer("mask", torch.tensor([bool(seed % 2), True]))


def state(module: Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_a_module_written_and_read_back_is_the_same():
    source, target = Everything(1), Everything(2)
    load_into(target, model_file(source, {"round": "0"}))
    assert_same(state(target), state(source))


def test_the_file_is_one_that_others_read():
    source = Everything(1)
    found = safetensors.torch.load(model_file(source, {"federation": "orchard"}))
    expected = state(source)
    expected["brain"] = expected["brain"].float()  # kept as float32
    assert_same(found, expected)
    assert tensors.layout_of(model_file(source, {"federation": "orchard"})).metadata == {"federation": "orchard"}


def test_bfloat16_comes_back_to_the_bit_by_way_of_float32():
    values = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    source, target = Module(), Module()
    source.weight = torch.nn.Parameter(values[torch.isfinite(values)])
    target.weight = torch.nn.Parameter(torch.zeros_like(source.weight))
    load_into(target, model_file(source, {}))
    assert torch.equal(target.weight.view(torch.int16), source.weight.view(torch.int16))
    assert floating(source)["weight"].dtype == np.float32


def test_parameters_stay_parameters_and_gradients_flow_after_loading():
    module = Linear(2, 1)
    parameters = list(module.parameters())
    load_into(module, model_file(Linear(2, 1), {}))
    assert all(old is new for old, new in zip(parameters, module.parameters(), strict=True))
    module(torch.ones(1, 2)).sum().backward()
    assert module.weight.grad is not None


def test_floating_tensors_travel_and_integers_stay():
    module = Sequential(Linear(2, 3), BatchNorm1d(3))
    assert set(floating(module)) == {
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
    }
    assert "1.num_batches_tracked" in tensors.layout_of(model_file(module, {})).tensors


def test_what_was_taken_out_of_a_module_does_not_change_with_it():
    module = Linear(2, 3)
    taken = floating(module)
    before = taken["weight"].copy()
    with torch.no_grad():
        module.weight.add_(1)
    assert np.array_equal(taken["weight"], before)


def test_tied_weights_are_written_under_both_names():
    module = Sequential(Linear(3, 3), Linear(3, 3))
    module[1].weight = module[0].weight
    other = Sequential(Linear(3, 3), Linear(3, 3))
    other[1].weight = other[0].weight
    load_into(other, model_file(module, {}))
    assert_same(state(other), state(module))


@pytest.mark.parametrize(
    ("module", "differences"),
    [
        (Sequential(Linear(2, 4)), ["0.bias: expected (3,), model() has (4,)", "0.weight: expected (3, 2), model()"]),
        (Sequential(Linear(2, 3, bias=False)), ["0.bias: expected (3,), model() has absent"]),
        (Sequential(Linear(2, 3), Linear(3, 1)), ["1.bias: expected absent, model() has (1,)", "1.weight: expected"]),
        (Linear(2, 3), ["0.weight: expected (3, 2), model() has absent", "  weight: expected absent, model() has (3"]),
    ],
    ids=["shape", "missing", "extra", "name"],
)
def test_a_model_that_changed_is_refused_tensor_by_tensor_and_left_as_it_is(module: Module, differences: list[str]):
    before = state(module)
    with pytest.raises(TaskError, match="not the federation's global model") as caught:
        load_into(module, model_file(Sequential(Linear(2, 3)), {}))
    assert all(line in str(caught.value) for line in differences)
    assert_same(state(module), before)


def test_a_float_in_the_place_of_a_whole_number_is_refused():
    """Not a number there would be none that the module shows, and every update would be rejected for it."""
    module = Linear(2, 3)
    module.register_buffer("steps", torch.tensor(12))
    arrays = tensors.load(model_file(module, {})) | {"steps": np.array(np.nan, np.float32)}
    with pytest.raises(TaskError, match=r"steps: expected float32, model\(\) has torch.int64"):
        load_into(module, tensors.dump(arrays, {}))
    assert module.steps == 12


def test_a_file_that_is_none_is_refused():
    with pytest.raises(InvalidTensorFile):
        load_into(Linear(2, 3), b"garbage")


def test_a_dtype_that_no_weight_file_holds_is_refused_by_name():
    module = Module()
    module.register_buffer("spectrum", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(InvalidTensorFile, match="'spectrum': dtype complex64"):
        model_file(module, {})
