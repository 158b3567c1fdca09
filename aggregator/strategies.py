"""From the settings and a frozen cohort to the rule that makes the next model."""

from collections.abc import Sequence
from dataclasses import dataclass

from aggregator.krum import nearest
from aggregator.mean import mean_of
from aggregator.precision import weights as by_precision
from aggregator.robust import median_of, trimmed_mean_of
from aggregator.server_optimizers import Optimizer
from aggregator.stripes import Rule, discard, write_data
from exchange.blocks import WeightFile
from exchange.records import StoredUpdate
from exchange.spec import FedAvg, FederationSettings, Median, MultiKrum, TrimmedMean

_STEP_SHARE = 2  # a step holds several times as many arrays of a stripe as a mean does


@dataclass(frozen=True)
class Update:
    """A member of the cohort, as recorded and opened."""

    record: StoredUpdate
    file: WeightFile


@dataclass(frozen=True)
class Plan:
    """How the next model is made.

    Attributes:
        rule: None keeps the model: a void round.
        left_out: the members that do not go into it, sorted.
        optimizer: the server's, if the strategy has one.
    """

    rule: Rule | None
    left_out: tuple[str, ...] = ()
    optimizer: Optimizer | None = None


def decide(
    settings: FederationSettings,
    model: WeightFile,
    updates: Sequence[Update],
    before: WeightFile | None,
    workers: int,
) -> Plan:
    """Return what the strategy makes of a round: a pure function of the cohort, the model and the optimizer's state.

    Args:
        updates: the cohort, sorted by client; none at all in a void round.
        before: the optimizer's state so far; None if there is none yet, or the strategy has no such thing.
    """
    if not updates:
        return Plan(None)
    files = [update.file for update in updates]
    match settings.strategy:
        case Median():
            return Plan(median_of(files))
        case TrimmedMean(byzantine=byzantine):
            return Plan(trimmed_mean_of(files, byzantine))
        case MultiKrum() as strategy:
            return _decide_krum(strategy, model, updates, workers)
        case FedAvg() as strategy:
            return Plan(_mean(settings, strategy.weights, model, updates, workers))
        case strategy:
            mean = _mean(settings, strategy.weights, model, updates, workers)
            optimizer = Optimizer(strategy, model, before)
            return Plan(Rule(mean.combine, mean.elements // _STEP_SHARE, optimizer.step), optimizer=optimizer)


def _decide_krum(strategy: MultiKrum, model: WeightFile, updates: Sequence[Update], workers: int) -> Plan:
    select = strategy.select or len(updates) - strategy.byzantine
    norms = [update.record.norm for update in updates]
    places = nearest(model, [update.file for update in updates], norms, strategy.byzantine, select, workers)
    chosen = [updates[place] for place in places]
    left_out = tuple(update.record.client for update in updates if update not in chosen)
    counted = [update.record.num_examples if strategy.weights == "examples" else 1 for update in chosen]
    return Plan(mean_of(list(zip([update.file for update in chosen], counted, strict=True))), left_out)


def _mean(
    settings: FederationSettings, weights: str, model: WeightFile, updates: Sequence[Update], workers: int
) -> Rule:
    files, records = [update.file for update in updates], [update.record for update in updates]
    if weights == "examples":
        return mean_of(list(zip(files, [record.num_examples for record in records], strict=True)))
    uniform = mean_of([(file, 1) for file in files])
    if weights == "uniform":
        return uniform
    moved = write_data(model, uniform, discard, workers).moved
    elements = sum(tensor.count for tensor in model.layout.floating)
    return mean_of(list(zip(files, by_precision(settings, records, moved, elements), strict=True)))
