import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from client.privacy.example_level import (
    ClippedGradients,
    UnsupportedModel,
    clipped_gradient_sum,
)
from client.privacy.layers import refuse_batch_statistics
from client.privacy.taps import find_layers


class Tied(nn.Module):
    """A linear layer whose weight is an embedding too."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.decoder = nn.Linear(4, 6)
        self.decoder.weight = self.embedding.weight

    def forward(self, x):
        return self.decoder(self.embedding(x.argmax(dim=1)).tanh())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.linear(self.linear(x).tanh()))


class Sequence(nn.Module):
    """A linear layer that sees several rows an example, then one that sees their mean."""

    def __init__(self):
        super().__init__()
        self.rows, self.head = nn.Linear(3, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.rows(x.reshape(len(x), 2, 3)).tanh().mean(dim=1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(3, 1, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        rows = x.reshape(len(x), 2, 3)
        return self.head(self.attention(rows, rows, rows, need_weights=False)[0].flatten(1))


class Product(torch.autograd.Function):
    """Out of sight of any mode: uses a weight without a torch function."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, weight):
        return x @ weight.T

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient @ weight, gradient.T @ x


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        return self.linear(x) + Product.apply(x.sin(), self.linear.weight)


class SharedBias(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 3), nn.Linear(6, 3)
        self.second.bias = self.first.bias
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return self.first(x) + self.scale * self.second(x.cos())


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(3, 6)), nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return functional.linear(weight=self.weight, bias=self.bias, input=x)


def frozen():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model[0].requires_grad_(False)
    model[2].bias.requires_grad_(False)
    return model


def parametrised():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 3))


MODELS = {
    "all linear": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3, bias=False)),
        {"0.weight", "2.weight"},
    ),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
        ),
        {"5.weight"},
    ),
    "no linear layer": (lambda: nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 3, 6), nn.Flatten()), set()),
    "a tied weight": (Tied, set()),
    "a layer used twice": (Twice, {"head.weight"}),
    "a layer on several rows": (Sequence, {"head.weight"}),
    "attention": (Attention, {"head.weight"}),
    "a weight with a hidden use": (Hidden, set()),
    "a shared bias": (SharedBias, set()),
    "no layer, a function": (Keywords, {"weight"}),
    "frozen parameters": (frozen, {"2.weight"}),
    "a parametrised weight": (parametrised, {"2.weight"}),
}


def batch(generator, size=7):
    x = torch.tensor(generator.standard_normal((size, 6)), dtype=torch.float32)
    return x, torch.tensor(generator.integers(3, size=size))


def one_by_one(model, x, y, clip_norm):
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    sums = {name: torch.zeros(parameter.shape, dtype=torch.float64) for name, parameter in parameters.items()}
    for i in range(len(x)):
        loss = functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        gradients = [gradient.double() for gradient in torch.autograd.grad(loss, list(parameters.values()))]
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        for total, gradient in zip(sums.values(), gradients, strict=True):
            total += gradient * min(1.0, clip_norm / norm)
    return sums


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("clip_norm", [0.2, 1.0, 1e6])
def test_the_sum_is_that_of_examples_taken_one_by_one(generator, name, clip_norm):
    torch.manual_seed(1)
    model = MODELS[name][0]()
    x, y = batch(generator)
    expected = one_by_one(model, x, y, clip_norm)
    found = clipped_gradient_sum(model, functional.cross_entropy, x, y, clip_norm, micro_batch=3).tensors
    assert found.keys() == expected.keys()
    for parameter, total in found.items():
        assert total.dtype == torch.float64
        torch.testing.assert_close(total, expected[parameter], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_only_layers_whose_gradient_is_one_outer_product_are_tapped(generator, name):
    build, expected = MODELS[name]
    model = build()
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    x, y = batch(generator, 1)
    assert set(find_layers(model, functional.cross_entropy, parameters, x, y)) == expected


def test_a_model_that_runs_otherwise_after_its_trial_is_still_right(generator):
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.times = nn.Linear(6, 6), 0

        def forward(self, x):
            self.times += 1
            return self.linear(x) if self.times == 1 else self.linear(self.linear(x).tanh())

    model = Moody()
    x, y = batch(generator)
    found = clipped_gradient_sum(model, functional.cross_entropy, x, y, 0.5).tensors
    torch.testing.assert_close(found["linear.weight"], one_by_one(model, x, y, 0.5)["linear.weight"])


@pytest.mark.parametrize("micro_batch", [1, 2, 7, 100])
def test_the_result_does_not_depend_on_the_micro_batch(generator, micro_batch):
    torch.manual_seed(1)
    model = MODELS["convolutions"][0]()
    x, y = batch(generator)
    whole = clipped_gradient_sum(model, functional.cross_entropy, x, y, 0.5).tensors
    found = clipped_gradient_sum(model, functional.cross_entropy, x, y, 0.5, micro_batch).tensors
    for name in whole:
        torch.testing.assert_close(found[name], whole[name], rtol=1e-5, atol=1e-7)


def test_no_more_than_a_micro_batch_is_computed_at_a_time(generator):
    runs = []

    class Counted(nn.Linear):
        def forward(self, x):
            runs.append(len(x))
            return super().forward(x)

    x, y = batch(generator, 10)
    gradients = ClippedGradients(Counted(6, 3), functional.cross_entropy, 1.0, micro_batch=3)
    gradients(x, y)
    assert runs == [1] * (1 + 4)  # the trial, then 3 + 3 + 3 + 1 examples
    gradients(x, y)
    assert len(runs) == 1 + 4 + 4


def test_an_example_more_moves_the_sum_by_at_most_the_clip_norm(generator):
    torch.manual_seed(1)
    model = MODELS["convolutions"][0]()
    x, y = batch(generator, 20)
    x = x * torch.logspace(-3, 3, 20)[:, None]
    moves = []
    for i in range(20):
        others = torch.arange(20) != i
        full = clipped_gradient_sum(model, functional.cross_entropy, x, y, 0.25).tensors
        less = clipped_gradient_sum(model, functional.cross_entropy, x[others], y[others], 0.25).tensors
        moves.append(math.sqrt(sum(float((full[name] - less[name]).square().sum()) for name in full)))
    assert max(moves) == pytest.approx(0.25, rel=1e-5)  # float32 gradients move by rounding, see the module


@pytest.mark.parametrize("hidden", [False, True])
def test_weights_that_magnify_rounding_show_no_row_in_the_others(generator, hidden):
    """A hostile parent's: outputs are differences of huge numbers, and their last bits are all that is left of them."""
    x = torch.tensor(generator.standard_normal((135, 200)), dtype=torch.float32)
    y = torch.tensor(generator.integers(3, size=135))
    torch.manual_seed(1)
    model = (
        nn.Sequential(nn.Linear(200, 32), nn.Tanh(), nn.Linear(32, 3)) if hidden else nn.Sequential(nn.Linear(200, 3))
    )
    span = torch.linalg.qr(x.double().T).Q
    huge = 1e8 * torch.randn(model[0].weight.shape, dtype=torch.float64)
    with torch.no_grad():
        model[0].weight.copy_(huge - huge @ span @ span.T)
    whole, less = (clipped_gradient_sum(model, functional.cross_entropy, x[n:], y[n:], 0.25).tensors for n in (0, 1))
    moved = math.sqrt(sum(float((whole[name] - less[name]).square().sum()) for name in whole))
    assert moved <= 0.25 * (1 + 1e-9)


def test_a_single_clipped_gradient_is_at_most_the_clip_norm_in_float64(generator):
    torch.manual_seed(1)
    for name in ("all linear", "convolutions", "attention"):
        x, y = batch(generator, 1)
        found = clipped_gradient_sum(MODELS[name][0](), functional.cross_entropy, x, y, 1e-3).tensors
        norm = math.sqrt(sum(float(total.square().sum()) for total in found.values()))
        assert 1e-3 * (1 - 1e-11) < norm <= 1e-3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["all linear", "convolutions"])
def test_a_gradient_that_is_not_finite_counts_as_nothing(generator, name, bad):
    torch.manual_seed(1)
    model = MODELS[name][0]()
    x, y = batch(generator)
    expected = clipped_gradient_sum(model, functional.cross_entropy, x, y, 0.5).tensors
    spoilt = torch.cat([x[:3], torch.full((1, 6), bad) * torch.tensor([1, 1, -1, 1, -1, 1]), x[3:]])
    found = clipped_gradient_sum(model, functional.cross_entropy, spoilt, torch.cat([y[:3], y[:1], y[3:]]), 0.5)
    assert found.non_finite == 1
    for parameter in expected:
        torch.testing.assert_close(found.tensors[parameter], expected[parameter], rtol=1e-5, atol=1e-7)


def test_no_examples_give_nothing():
    found = clipped_gradient_sum(
        nn.Linear(6, 3), functional.cross_entropy, torch.zeros(0, 6), torch.zeros(0).long(), 1.0
    )
    assert found.non_finite == 0
    assert all((total == 0).all() for total in found.tensors.values())


def test_dropout_differs_between_examples():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3))
    found = clipped_gradient_sum(model, functional.cross_entropy, torch.ones(200, 6), torch.zeros(200).long(), 1e6)
    columns = found.tensors["1.weight"].norm(dim=0)
    assert len(columns.unique()) == 6


class FirstSeen(nn.Module):
    """Keeps what it first sees, as layers do that start from their data."""

    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(6, 3), None

    def forward(self, x):
        if self.seen is None:
            self.seen = x.detach().mean(dim=0)
        return self.linear(x - self.seen)


class Replaced(nn.Module):
    """Keeps a running mean in a buffer that it replaces."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        self.mean = 0.5 * self.mean + 0.5 * x.detach().mean(dim=0)
        return self.linear(x - self.mean)


class Centred(nn.Module):
    """Normalises by the batch, without a name for it."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        rows = self.linear(x)
        return rows - 0.5 * rows.mean(dim=0)


@pytest.mark.parametrize("model", [FirstSeen, Replaced, Centred])
def test_a_model_that_would_carry_something_from_one_example_to_the_next_does_not(generator, model):
    x, y = batch(generator, 40)
    x = 3 * x + 2
    sums = []
    for first in (0, 1):
        torch.manual_seed(3)
        gradients = ClippedGradients(model(), functional.cross_entropy, 0.25, micro_batch=4)
        sums.append(gradients(x[first:], y[first:]).tensors)
    moved = math.sqrt(sum(float((sums[0][name] - sums[1][name]).square().sum()) for name in sums[0]))
    assert moved <= 0.25 * (1 + 1e-5)


def test_a_model_that_fails_on_a_made_up_example_is_trained_the_general_way(generator):
    def picky(output, target):
        if not torch._C._functorch.is_functorch_wrapped_tensor(target):
            raise ValueError("expected a real example")
        return functional.cross_entropy(output, target)

    torch.manual_seed(1)
    model = MODELS["all linear"][0]()
    x, y = batch(generator)
    found = clipped_gradient_sum(model, picky, x, y, 0.25).tensors
    for name, expected in one_by_one(model, x, y, 0.25).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)


def test_the_model_is_left_as_it_was(generator):
    model = MODELS["convolutions"][0]()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    clipped_gradient_sum(model, functional.cross_entropy, *batch(generator), 1.0)
    assert all((tensor == before[name]).all() for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(6),
        nn.BatchNorm2d(6, track_running_stats=False),
        nn.SyncBatchNorm(6),
        nn.LazyBatchNorm1d(),
        nn.InstanceNorm1d(6, track_running_stats=True),
    ],
)
def test_a_layer_with_batch_statistics_is_refused_by_name(layer):
    model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.ReLU(), layer))
    with pytest.raises(UnsupportedModel, match=rf"layer '1\.1'.*got {type(layer).__name__}.*replace it by GroupNorm"):
        clipped_gradient_sum(model, functional.cross_entropy, torch.zeros(2, 6), torch.zeros(2).long(), 1.0)


class Recurrent(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.layer(x.reshape(len(x), 2, 3))[0][:, -1])


@pytest.mark.parametrize("model", [Recurrent(nn.GRU), Recurrent(nn.RNN), nn.Sequential(nn.GRUCell(6, 3))])
def test_a_recurrent_layer_that_torch_cannot_take_example_by_example_is_refused_by_name(model):
    with pytest.raises(UnsupportedModel, match=r"layer '(layer|0)': .* got (GRU|RNN|GRUCell); replace it by LSTM"):
        clipped_gradient_sum(model, functional.cross_entropy, torch.zeros(2, 6), torch.zeros(2).long(), 1.0)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # it is slow, and right
def test_an_lstm_is_taken_example_by_example(generator):
    torch.manual_seed(1)
    model, (x, y) = Recurrent(nn.LSTM), batch(generator)
    found = clipped_gradient_sum(model, functional.cross_entropy, x, y, 0.25).tensors
    for name, expected in one_by_one(model, x, y, 0.25).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)


def test_layers_that_treat_each_example_alone_are_welcome():
    refuse_batch_statistics(nn.Sequential(nn.GroupNorm(2, 6), nn.LayerNorm(6), nn.InstanceNorm1d(6)))


def test_bad_arguments_are_refused_by_their_names():
    model, x, y = nn.Linear(6, 3), torch.zeros(2, 6), torch.zeros(2).long()
    with pytest.raises(ValueError, match="clip_norm"):
        clipped_gradient_sum(model, functional.cross_entropy, x, y, math.nan)
    with pytest.raises(ValueError, match="micro_batch"):
        clipped_gradient_sum(model, functional.cross_entropy, x, y, 1.0, micro_batch=0)
    with pytest.raises(ValueError, match="targets: expected 2 like the inputs, got 1"):
        clipped_gradient_sum(model, functional.cross_entropy, x, y[:1], 1.0)
    with pytest.raises(UnsupportedModel, match="requires_grad"):
        clipped_gradient_sum(model.requires_grad_(False), functional.cross_entropy, x, y, 1.0)
