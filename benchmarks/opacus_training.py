"""Training by Opacus 1.6, as `benchmarks.cnn_opacus` compares it; runs in the environment that has Opacus."""

from collections.abc import Iterator
from copy import deepcopy

import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from client.learn import initial_model
from client.privacy.plan import DpSgdPlan
from client.weights import load_into
from examples.in_memory import Dealt
from examples.prepare import Data


def federated(dealt: Dealt, plan: DpSgdPlan) -> Iterator[nn.Module]:
    """Yield the global model of each round, model 0 first: Opacus in the clients, averaged by examples."""
    model = _first(dealt, plan)
    yield model
    sizes = torch.tensor([len(part) for part in dealt.clients.values()], dtype=torch.float64)
    for _ in range(plan.settings.rounds):
        states = [_local(deepcopy(model).train(), part, plan) for part in dealt.clients.values()]
        model.load_state_dict(_mean(states, sizes / sizes.sum()))
        yield model


def pooled(dealt: Dealt, plan: DpSgdPlan) -> Iterator[nn.Module]:
    """Yield the model after as many steps as a round has, from model 0 on: Opacus on everybody's data."""
    model = _first(dealt, plan)
    yield model
    inputs, targets = (torch.cat(parts) for parts in zip(*map(_tensors, dealt.clients.values()), strict=True))
    private, optimizer = _private(model, len(inputs), plan)
    for _ in range(plan.settings.rounds):
        private.train()  # whoever looked at the model left it in evaluation mode
        for _ in range(plan.event.steps):
            _step(private, optimizer, inputs, targets, plan)
        yield model


def _local(module: nn.Module, part: Data, plan: DpSgdPlan) -> dict[str, Tensor]:
    inputs, targets = _tensors(part)
    private, optimizer = _private(module, len(inputs), plan)
    start = [parameter.detach().clone() for parameter in module.parameters()]
    for _ in range(plan.event.steps):
        _step(private, optimizer, inputs, targets, plan, start)
    return module.state_dict()


def _private(module: nn.Module, examples: int, plan: DpSgdPlan) -> tuple[GradSampleModule, DPOptimizer]:
    optimizer = DPOptimizer(
        torch.optim.SGD(module.parameters(), plan.settings.train.learning_rate),
        noise_multiplier=plan.event.noise_multiplier,
        max_grad_norm=plan.privacy.clip_norm,
        expected_batch_size=plan.event.sampling_probability * examples,
    )
    return GradSampleModule(module), optimizer


def _step(
    private: GradSampleModule,
    optimizer: DPOptimizer,
    inputs: Tensor,
    targets: Tensor,
    plan: DpSgdPlan,
    start: list[Tensor] | None = None,
) -> None:
    """Take one step on a Poisson sample; `start` is what a proximal pull goes to."""
    sample = torch.rand(len(inputs)) < plan.event.sampling_probability
    assert sample.any(), "Opacus takes no step without examples"
    optimizer.zero_grad()
    cross_entropy(private(inputs[sample]), targets[sample]).backward()
    optimizer.pre_step()
    for parameter, anchor in zip(private.parameters(), start or (), strict=start is not None):
        parameter.grad += plan.settings.train.proximal_mu * (parameter.detach() - anchor)
    optimizer.original_optimizer.step()


def _first(dealt: Dealt, plan: DpSgdPlan) -> nn.Module:
    model = dealt.task.model(0)
    load_into(model, initial_model(dealt.task, plan.settings))
    return model


def _mean(states: list[dict[str, Tensor]], shares: Tensor) -> dict[str, Tensor]:
    stacked = {name: torch.stack([state[name].double() for state in states]) for name in states[0]}
    return {name: torch.tensordot(shares, each, dims=1).float() for name, each in stacked.items()}


def _tensors(part: Data) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(part.inputs), torch.from_numpy(part.targets)
