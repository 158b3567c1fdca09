"""The first screen of the page: how the run ended, what came of it, and by what measure."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from fedbucket.endings import REASONS
from fedbucket.report.facts import Run, mapping, numbers
from fedbucket.report.wording import LEVEL, count, metric, percent, sentence, series


def ending(run: Run) -> str:
    """How the run ended, in a clause."""
    done, planned = len(run.rounds), run.planned_rounds
    of = f"{done} of {planned} rounds" if planned and planned != done else count(done, "round")
    if run.finished is None:
        return f"Not finished: {of} so far" if done else "Not finished: no round has closed yet"
    if run.finished == "rounds":
        return f"Finished: {'its one round is' if done == 1 else f'all {done} rounds are'} done"
    return f"Stopped after {of}: {REASONS.get(run.finished, run.finished)}"


def went_wrong(run: Run) -> bool:
    """Whether the run ended otherwise than agreed, or has not ended."""
    return run.finished in {None, "void"}


def headline(run: Run) -> Markup:
    """The one sentence with the numbers that matter."""
    who = sentence(count(len(run.clients), "client")) if run.clients else "The clients"
    alone_in_it = len(run.clients) == 1
    if run.federated is None:
        what = "a model" if alone_in_it else "one model together"
        if not run.rounds:
            return Markup("{} will train {}. No round has closed yet.").format(who, what)
        trained = "trained" if run.finished else "is training" if alone_in_it else "are training"
        return Markup("{} {} {}. {}").format(who, trained, what, _unscored(run))
    reaches = "reaches" if alone_in_it else "together reach"
    text = Markup("{} {} {}").format(who, reaches, _figure("federated", percent(run.federated)))
    if run.alone_mean is not None:
        text += _against_alone(run, run.federated - run.alone_mean, alone_in_it)
    if run.pooled is not None:
        text += Markup("; one model on all data pooled would reach {}").format(_figure("pooled", percent(run.pooled)))
    if run.alone_mean is None and run.pooled is None:
        text += Markup(". No baseline was trained to compare it with")
    return text + Markup(".")


def _unscored(run: Run) -> Markup:
    if run.scores:
        return _other_metrics(run)
    scored = [(each.number, each.shared_mean["accuracy"]) for each in run.rounds if "accuracy" in each.shared_mean]
    if not scored and run.bucket_only:
        return Markup("The parent’s bucket holds no accuracy: clients shared none, and there is no test set.")
    if not scored:
        return Markup("The run had no common test set, so there is no accuracy to report.")
    last, accuracy = scored[-1]
    return Markup("On the clients’ own validation data model {} reaches {}; there was no common test set.").format(
        last, _figure("federated", percent(accuracy))
    )


def _other_metrics(run: Run) -> Markup:
    """The metrics of a task that does not measure accuracy, beside those of the baselines."""
    alone = [numbers(values) for values in mapping(run.metrics.get("alone")).values()]
    pooled = numbers(run.metrics.get("pooled"))
    parts = []
    for name, value in run.scores.items():
        known = [values[name] for values in alone if name in values]
        beside = [f"alone {metric(name, sum(known) / len(known))} on average"] if known else []
        beside += [f"pooled {metric(name, pooled[name])}"] if name in pooled else []
        figure = _figure("federated", metric(name, value))
        parts.append(Markup("{} {}{}").format(name, figure, f" ({', '.join(beside)})" if beside else ""))
    return Markup("On the common test set: {}.").format(Markup(", ").join(parts))


def _against_alone(run: Run, gain: float, alone_in_it: bool) -> Markup:
    who = "; trained outside the loop it reaches {}" if alone_in_it else "; alone they reach {} on average"
    text = Markup(who).format(_figure("alone", percent(run.alone_mean)))
    if run.ratio is None:
        return text
    verdict = ", so on average federation does not pay here" if gain <= -LEVEL and not alone_in_it else ""
    if abs(gain) >= LEVEL and run.by_chance(gain):
        verdict = f", a difference that may be chance on {run.test_examples} test examples"
    return text + Markup(": {}{}").format(_figure("ratio", f"{run.ratio:.2f}×"), verdict)


def _figure(kind: str, text: str) -> Markup:
    return Markup('<strong class="{}">{}</strong>').format(kind, text)


def measure(run: Run) -> str:
    """What the figures are of, and how far they may be off."""
    if run.federated is None:
        return f"The task’s own: {series(sorted(run.scores))}; it measures no accuracy." if run.scores else ""
    test = (
        f"{run.test_examples} examples that no client holds" if run.test_examples else "examples that no client holds"
    )
    text = f"Accuracy: the share of right answers on one test set of {test}."
    if run.margin is not None:
        text += f" Differences below about {100 * run.margin:.1f} points may be chance."
    trained = _baselines({"alone": run.alone_mean, "pooled": run.pooled})
    return f"{text}{trained} One run: another would come out a little different."


def _baselines(known: Mapping[str, float | None]) -> str:
    on = {"alone": "trained on each client’s own data only", "pooled": "trained on all data together"}
    listed = [f"{name}: {on[name]}" for name, value in known.items() if value is not None]
    return f" {sentence('; '.join(listed))}; to convergence, without noise." if listed else ""
