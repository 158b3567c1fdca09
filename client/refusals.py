"""What local training refuses, by name, before anything is charged: models, weights and metrics that do not fit."""

from torch.nn import Module

from client.privacy.convex import refuse_unknown_convexity
from client.privacy.layers import refuse_batch_statistics
from client.task import Task
from exchange.errors import InvalidTensorFile, TaskError
from exchange.records import LARGEST_METRIC, MAX_METRIC_NAME, MAX_METRICS, Metrics
from exchange.spec import FederationSettings, NoPrivacy, OrnsteinUhlenbeckPrivacy, StopSettings


def refuse_non_finite_weights(module: Module) -> None:
    """Raise InvalidTensorFile, before anything is charged, for a model that nothing can be learned from."""
    if unfit := [name for name, tensor in module.state_dict().items() if not tensor.isfinite().all()]:
        raise InvalidTensorFile(f"the global model holds values that are not finite, in {unfit}; nothing was learned")


def refuse_unfit_model(task: Task, module: Module, settings: FederationSettings) -> None:
    """Raise UnsupportedModel for a model that the settings' mechanism has no proof for."""
    privacy = settings.privacy
    if isinstance(privacy, NoPrivacy):
        return
    with task.blamed("model()"):
        refuse_batch_statistics(module)
        one_step_only = isinstance(privacy, OrnsteinUhlenbeckPrivacy) and privacy.unit == "example"
        if one_step_only and settings.train.local_epochs > 1:
            refuse_unknown_convexity(module, task.has_own_loss)


def refuse_unfit_metrics(task: Task, metrics: Metrics, stop: StopSettings) -> None:
    """Raise TaskError, before anything is charged, for metrics for which the parent would reject the update.

    Or by which it would never stop, though that is agreed.
    """
    if metrics and stop.patience is not None and stop.metric not in metrics:
        raise TaskError(
            f"{task.path}: metrics() gave {sorted(metrics)}; expected {stop.metric!r} among them, by which the "
            "federation stops (stop.metric)"
        )
    unfit = {
        name: value
        for name, value in metrics.items()
        if not abs(value) < LARGEST_METRIC or len(name) > MAX_METRIC_NAME  # nor is NaN below
    }
    if unfit or len(metrics) > MAX_METRICS:
        raise TaskError(
            f"{task.path}: metrics() gave {unfit or len(metrics)}, expected numbers below {LARGEST_METRIC:g} in "
            f"magnitude, at most {MAX_METRICS}, by names of at most {MAX_METRIC_NAME} characters: these are shared"
        )
