"""How far one neighbour can move what is released: L2 sensitivities Δ, in units of the weights.

Δ is what noise is measured in (z = sd/Δ), so it stands together with its conditions. What rounding to the lattice costs
is added by `client.privacy.lattice.padded_sensitivity`.
"""

from typing import Literal

from client.privacy.checks import count, one_of, positive

# Softmax regression on rows ‖x‖ ≤ 1 with a bias, which is one more input of 1: ‖(x, 1)‖² ≤ 2. A row's gradient is
# (p − y)(x, 1)ᵀ with ‖p − y‖ ≤ √2, its Hessian at most ½‖(x, 1)‖².
SOFTMAX_LIPSCHITZ = 2.0
SOFTMAX_SMOOTHNESS = 1.0
ROUNDED = 2.0**-10  # the share of several steps' sensitivity that is kept for what their arithmetic rounds off

Adjacency = Literal["add-or-remove", "replace-one"]


def client_sensitivity(clip_norm: float) -> float:
    """Return 2C: the whole data set of one client is replaced, and its update is clipped to C = `clip_norm`."""
    return 2 * positive("clip_norm", clip_norm)


def example_sensitivity(clip_norm: float, adjacency: Adjacency) -> float:
    """Return the sensitivity of a sum of gradients, each clipped to C = `clip_norm`.

    C where one example is added or removed; 2C where one is replaced.
    """
    one_of("adjacency", adjacency, ("add-or-remove", "replace-one"))
    return positive("clip_norm", clip_norm) * (2 if adjacency == "replace-one" else 1)


def one_step_sensitivity(learning_rate: float, clip_norm: float, declared_examples: int, adjacency: Adjacency) -> float:
    """Return the sensitivity of u = −η(1/n)Σ clip(∇ℓ_i, C): ηC/n (add-or-remove) or 2ηC/n (replace-one).

    Holds for any model, since each example's gradient is taken alone and clipped. n is the declared number of examples:
    a constant, so that it says nothing of who is there.
    """
    rate = positive("learning_rate", learning_rate) / count("declared_examples", declared_examples)
    return rate * example_sensitivity(clip_norm, adjacency)


def output_perturbation_sensitivity(
    learning_rate: float,
    lipschitz: float,
    smoothness: float,
    steps: int,
    declared_examples: int,
    adjacency: Adjacency,
) -> float:
    """Return the sensitivity of w_E − w_0 after E full-batch gradient steps: EηL/n, or 2EηL/n under replace-one.

    One gradient step on a convex, β-smooth objective moves two points no further apart if η ≤ 2/β (Hardt, Recht,
    Singer, "Train Faster, Generalize Better", ICML 2016, lemma 3.6), and one example moves each step by at most ηL/n,
    or 2ηL/n (Wu et al., "Bolt-on Differential Privacy for Scalable Stochastic Gradient Descent-based Analytics",
    SIGMOD 2017).

    Every condition is the caller's to know; where one fails, so does the guarantee, by orders of magnitude:
    - each example's loss is convex in all of the weights: softmax regression, not a network with a hidden layer;
    - its gradient is at most L = `lipschitz` in norm at all weights that can be reached, without being clipped (a
      clipped gradient need not be the gradient of any convex function);
    - it is β-smooth, with β = `smoothness`: its gradient is Lipschitz with constant β;
    - every step takes all examples, and divides by the declared number n.

    For softmax regression L = √2 and β = ½ if ‖x‖ ≤ 1, where a bias counts as one more input of 1.

    Raises:
        ValueError: η > 2/β, or a number out of its range.
    """
    if positive("learning_rate", learning_rate) > 2 / positive("smoothness", smoothness):
        raise ValueError(f"learning_rate: expected at most 2/smoothness = {2 / smoothness:g}, got {learning_rate!r}")
    per_step = one_step_sensitivity(learning_rate, positive("lipschitz", lipschitz), declared_examples, adjacency)
    return count("steps", steps) * per_step
