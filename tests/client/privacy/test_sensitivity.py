import math

import pytest
import torch

from client.privacy.dp_sgd import one_step
from client.privacy.sensitivity import (
    client_sensitivity,
    example_sensitivity,
    one_step_sensitivity,
    output_perturbation_sensitivity,
)

ADJACENCIES = ["add-or-remove", "replace-one"]


def softmax_regression():
    model = torch.nn.Linear(5, 3, bias=False)
    torch.nn.init.zeros_(model.weight)
    return model


def cross_entropy(output, target):
    return torch.nn.functional.cross_entropy(output, target)


def rows(generator, count):
    x = torch.tensor(generator.standard_normal((count, 5)), dtype=torch.float32)
    return x / x.norm(dim=1, keepdim=True), torch.tensor(generator.integers(3, size=count))


def neighbour(x, y, adjacency):
    if adjacency == "add-or-remove":
        return x[1:], y[1:]
    return torch.cat([-x[:1], x[1:]]), y


def distance(one, other):
    return math.sqrt(sum(((one[name] - other[name]) ** 2).sum() for name in one))


def test_a_replaced_unit_counts_twice():
    assert client_sensitivity(0.5) == 1.0
    assert example_sensitivity(0.5, "add-or-remove") == 0.5
    assert example_sensitivity(0.5, "replace-one") == 1.0
    assert one_step_sensitivity(4.0, 1.0, 200, "add-or-remove") == 0.02
    assert one_step_sensitivity(4.0, 1.0, 200, "replace-one") == 0.04
    assert output_perturbation_sensitivity(0.1, 2.0, 1.0, 5, 100, "replace-one") == pytest.approx(2 * 5 * 0.1 * 2 / 100)
    assert output_perturbation_sensitivity(0.1, 2.0, 1.0, 5, 100, "add-or-remove") == pytest.approx(0.01)


@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_one_step_moves_by_no_more_than_its_sensitivity_and_nearly_so_far(generator, adjacency):
    settings = {"learning_rate": 4.0, "clip_norm": 0.3, "declared_examples": 10}
    bound, farthest = one_step_sensitivity(adjacency=adjacency, **settings), 0.0
    for _ in range(10):
        x, y = rows(generator, 10)
        u = one_step(softmax_regression(), cross_entropy, x, y, **settings)
        other = one_step(softmax_regression(), cross_entropy, *neighbour(x, y, adjacency), **settings)
        farthest = max(farthest, distance(u, other))
    assert 0.99 * bound < farthest <= bound


@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_several_convex_steps_move_by_no_more_than_their_sensitivity(generator, adjacency):
    rate, steps, declared = 3.9, 20, 6
    bound = output_perturbation_sensitivity(rate, math.sqrt(2), 0.5, steps, declared, adjacency)

    def descend(x, y):
        model = softmax_regression()
        for _ in range(steps):
            (gradient,) = torch.autograd.grad(cross_entropy(model(x), y) * len(x) / declared, model.weight)
            with torch.no_grad():
                model.weight -= rate * gradient
        return {"weight": model.weight.detach().double().numpy()}

    for _ in range(5):
        x, y = rows(generator, declared)
        moved = distance(descend(x, y), descend(*neighbour(x, y, adjacency)))
        assert 0 < moved <= bound


def test_a_learning_rate_beyond_the_convex_bound_is_refused():
    with pytest.raises(ValueError, match="learning_rate: expected at most 2/smoothness = 4"):
        output_perturbation_sensitivity(4.1, 1.0, 0.5, 1, 100, "replace-one")


def test_bad_values_are_refused_by_their_names():
    with pytest.raises(ValueError, match="adjacency: expected one of 'add-or-remove', 'replace-one', got 'remove'"):
        example_sensitivity(1.0, "remove")
    with pytest.raises(ValueError, match="declared_examples"):
        one_step_sensitivity(1.0, 1.0, 0, "replace-one")
    with pytest.raises(ValueError, match="clip_norm"):
        client_sensitivity(math.inf)
    with pytest.raises(ValueError, match="lipschitz"):
        output_perturbation_sensitivity(0.1, math.nan, 1.0, 5, 100, "replace-one")
    with pytest.raises(ValueError, match="steps"):
        output_perturbation_sensitivity(0.1, 1.0, 1.0, 0, 100, "replace-one")
