"""Local training whose result is private to one example.

`one_step` is one full-batch step of clipped gradients: not yet private, the release puts the noise on it. `dp_sgd`
(Abadi et al., "Deep Learning with Differential Privacy", CCS 2016) noises its every step, so that what comes out is
post-processing and needs no noise of its own. Its price is `client.privacy.accounting.SampledSteps` with the same
sampling probability, noise multiplier and steps.

With `proximal_mu` = μ, a step is X ← X − η(g + μ(X − X_global)) + noise: the Ornstein-Uhlenbeck process with drift
μ(X_global − X), discretised. The guarantee comes from the composed steps, not from the drift, which is post-processing.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.checkpoints import UNSAVED, Saves
from client.privacy.batches import DEFAULT_MICRO_BATCH, enough_for
from client.privacy.checks import count, inside_unit_interval, non_negative, one_of, positive, probability
from client.privacy.example_level import ClippedGradients
from client.privacy.lattice import padded_sensitivity, release_tensors
from client.privacy.noise import Source
from client.privacy.taps import Loss
from client.snapshots import resume, snapshot


@dataclass(frozen=True)
class DpSgd:
    """What DP-SGD is told.

    Attributes:
        clip_norm: C > 0, the largest L2 norm of an example's gradient.
        noise_multiplier: z > 0: the noise on the sum has sd zC. Neighbours differ by one example, added or removed.
        sampling_probability: q in (0, 1], with which each example takes part in a step, on its own.
        steps: how many, at least 1.
        learning_rate: η > 0.
        declared_examples: n, a constant: a step divides by qn.
        optimizer: what is done with the noised gradient: post-processing.
        momentum: of "sgd", in [0, 1).
        proximal_mu: μ ≥ 0, the pull to the weights that training starts from.
        micro_batch: how many examples are held at a time.

    Raises:
        ValueError: a number out of its range, or an unknown choice.
    """

    clip_norm: float
    noise_multiplier: float
    sampling_probability: float
    steps: int
    learning_rate: float
    declared_examples: int
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.0
    proximal_mu: float = 0.0
    micro_batch: int = DEFAULT_MICRO_BATCH

    def __post_init__(self) -> None:
        positive("clip_norm", self.clip_norm)
        positive("noise_multiplier", self.noise_multiplier)
        probability("sampling_probability", self.sampling_probability)
        positive("learning_rate", self.learning_rate)
        non_negative("proximal_mu", self.proximal_mu)
        one_of("optimizer", self.optimizer, ("sgd", "adam"))
        if self.momentum != 0:
            inside_unit_interval("momentum", self.momentum)
            one_of("optimizer with momentum", self.optimizer, ("sgd",))
        for name in ("steps", "declared_examples", "micro_batch"):
            count(name, getattr(self, name))


def dp_sgd(
    model: nn.Module,
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
    settings: DpSgd,
    *,
    normals: Source,
    uniforms: Source,
    saves: Saves = UNSAVED,
) -> dict[str, NDArray[np.float64]]:
    """Train `model` in place by DP-SGD, and return what became of its trainable parameters: after − before, float64.

    A step draws its examples by Poisson sampling; one that draws none is noise alone, and is taken all the same.

    Resumed training draws afresh for the steps after its checkpoint, also for those that an earlier invocation took and
    lost. That is sound: what leaves is the end of one chain of steps, in which each has its own sample and noise, and
    that is what the accountant composes. A step that was lost is in no chain that is ever released; and clocks and
    crashes decide which chain goes on, not what was drawn.

    Args:
        model: any module that treats each example alone; it holds the global model's weights.
        loss: loss(output, target) of a batch.
        inputs: shape (n', …), with n' at most the declared number.
        targets: shape (n', …).
        settings: see `DpSgd`.
        normals: standard normals; `client.privacy.noise.system_normals` in production.
        uniforms: uniforms on [0, 1); `client.privacy.noise.system_uniforms` in production. The sample is secret.
        saves: where training goes on from.

    Raises:
        UnsupportedModel: a layer keeps statistics of the batch, or nothing is to be trained.
        ValueError: more examples than were declared.
        TrainingPaused, RoundClosed: from `saves`.
    """
    _refuse_undeclared(inputs, settings.declared_examples)
    expected = settings.sampling_probability * settings.declared_examples
    gradients = ClippedGradients(model, loss, settings.clip_norm, enough_for(expected, settings.micro_batch))
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer = _optimizer(list(parameters.values()), settings)
    noise_sd = _noise_sd(sum(parameter.numel() for parameter in parameters.values()), settings)
    for step in range(resume(saves, parameters, optimizer).get("steps", 0), settings.steps):
        sample = torch.from_numpy(np.flatnonzero(uniforms(len(inputs)) < settings.sampling_probability))
        clipped = gradients(inputs[sample], targets[sample]).tensors
        noised = release_tensors({name: total.cpu().numpy() for name, total in clipped.items()}, noise_sd, normals)
        for name, parameter in parameters.items():
            parameter.grad = torch.from_numpy(noised[name] / expected).to(parameter)
            if settings.proximal_mu:
                parameter.grad += settings.proximal_mu * (parameter.detach() - start[name])
        optimizer.step()
        saves.passed(partial(snapshot, parameters, optimizer, {"steps": step + 1}))
    optimizer.zero_grad()
    return {name: _float64(parameter) - _float64(start[name]) for name, parameter in parameters.items()}


def one_step(
    model: nn.Module,
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
    *,
    learning_rate: float,
    clip_norm: float,
    declared_examples: int,
    micro_batch: int = DEFAULT_MICRO_BATCH,
    saves: Saves = UNSAVED,
) -> dict[str, NDArray[np.float64]]:
    """Return u = −η(1/n)Σ clip(∇ℓ_i, C), by name of the trainable parameters, float64: not private before its release.

    Its sensitivity is `client.privacy.sensitivity.one_step_sensitivity`. The model is left as it is. `saves` is asked
    after each micro-batch, and a sum that is taken up again comes to the same bytes.

    Raises:
        UnsupportedModel: a layer keeps statistics of the batch, or nothing is to be trained.
        ValueError: more examples than were declared, or a number out of its range.
    """
    rate = positive("learning_rate", learning_rate) / count("declared_examples", declared_examples)
    _refuse_undeclared(inputs, declared_examples)
    held = enough_for(declared_examples, micro_batch)
    clipped = ClippedGradients(model, loss, clip_norm, held)(inputs, targets, saves).tensors
    return {name: -rate * total.cpu().numpy() for name, total in clipped.items()}


def _refuse_undeclared(inputs: Tensor, declared_examples: int) -> None:
    if len(inputs) > declared_examples:
        raise ValueError(f"inputs: expected at most the {declared_examples} declared examples, got more")


def _noise_sd(dimension: int, settings: DpSgd) -> float:
    return settings.noise_multiplier * padded_sensitivity(settings.clip_norm, settings.noise_multiplier, dimension)


def _optimizer(parameters: list[nn.Parameter], settings: DpSgd) -> torch.optim.Optimizer:
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=settings.learning_rate)
    return torch.optim.SGD(parameters, lr=settings.learning_rate, momentum=settings.momentum)


def _float64(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().double().numpy()
