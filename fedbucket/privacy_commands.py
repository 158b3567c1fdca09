"""`fedbucket privacy`: what a privacy guarantee costs before it is bought, and what was spent since."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.privacy.accounting import GaussianRelease, calibrate_multiplier, epsilon, gaussian_epsilon
from client.privacy.ledger import Charge, Genesis, Ledger, events_of, refuse_other_unit
from client.privacy.noise import system_normals
from client.privacy.ou import DEFAULT_THETA, DEFAULT_TIME, calibrate
from client.privacy.plan import make_plan
from client.privacy.sensitivity import client_sensitivity, one_step_sensitivity
from exchange.errors import SettingsError
from exchange.spec import MAX_ROUNDS, ClientSettings, FederationSettings, read_client, read_federation
from exchange.stores import Store, open_store
from fedbucket.local.folder import RunFolder
from fedbucket.terminal import plain_errors, run_path

if TYPE_CHECKING:
    from fedbucket.audit import Audited

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_LARGE_EPSILON = 10  # above, the guarantee says little: an attacker's odds may change by a factor of e^10


@click.group()
def privacy() -> None:
    """What privacy costs, has cost, and gives away."""


@privacy.command(name="calibrate")
@click.option("--epsilon", "target", type=float, required=True, help="ε of all rounds together.")
@click.option("--delta", type=float, required=True, help="δ, at which ε holds.")
@click.option("--rounds", type=click.IntRange(1, MAX_ROUNDS), required=True, help="Releases that share the budget.")
@click.option(
    "--clip-norm", type=float, required=True, help="C: of the whole difference, or of one example's gradient."
)
@click.option("--unit", type=click.Choice(["client", "example"]), default="client", show_default=True)
@click.option("--examples", type=click.IntRange(min=1), help="Unit example: the declared number.")
@click.option("--learning-rate", type=float, help="Unit example: of the one full-batch step a round.")
@click.option("--theta", type=float, default=DEFAULT_THETA, show_default=True, help="θ, the rate of reversion.")
@click.option("--time", type=float, default=DEFAULT_TIME, show_default=True, help="t, how long the process runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def calibrate_command(
    target: float,
    delta: float,
    rounds: int,
    clip_norm: float,
    unit: str,
    examples: int | None,
    learning_rate: float | None,
    theta: float,
    time: float,
    as_json: bool,
) -> None:
    """Print the noise that a guarantee takes.

    That is z, σ, a, s, and the ε after every round. Unit client: the whole data set of one client is replaced, Δ =
    2C. Unit example: one example is added or removed, Δ = ηC/n, with one full-batch step a round.
    """
    with plain_errors():
        adjacency = "replace-one" if unit == "client" else "add-or-remove"
        if unit == "client":
            if examples is not None or learning_rate is not None:
                raise click.UsageError("unit client takes neither --examples nor --learning-rate: Δ = 2C")
            sensitivity = client_sensitivity(clip_norm)
        elif examples is None or learning_rate is None:
            raise click.UsageError("unit example takes --examples and --learning-rate too")
        else:
            sensitivity = one_step_sensitivity(learning_rate, clip_norm, examples, "add-or-remove")
        multiplier = calibrate_multiplier(target, delta, rounds)
        process = calibrate(multiplier, sensitivity, theta, time)
        found = {
            "unit": unit,
            "adjacency": adjacency,
            "delta": delta,
            "epsilon": epsilon([GaussianRelease(multiplier)] * rounds, delta),
            "noise_multiplier": multiplier,
            "sensitivity": sensitivity,
            "sigma": process.sigma,
            "contraction": process.contraction,
            "noise_sd": process.noise_sd,
            "examples": examples,
            "epsilon_by_round": [gaussian_epsilon(number**0.5 / multiplier, delta) for number in range(1, rounds + 1)],
        }
        click.echo(json.dumps(found, indent=2) if as_json else _calibration_table(found))


@privacy.command(name="open")
@click.argument("client", type=_FILE)
def open_command(client: Path) -> None:
    """Begin the privacy account of a data set.

    Once for the data set of CLIENT (a client.toml), ever. An account that was lost is restored, not begun anew:
    whatever was released stays released.
    """
    with plain_errors():
        settings = read_client(client)
        if settings.budget is None:
            raise SettingsError(str(client), ["budget: expected a [budget] section: unit, adjacency, epsilon, delta"])
        state = _state(client, settings)
        Ledger(state, settings.dataset).open(settings.budget.unit, settings.budget.adjacency, os.urandom(32))
        click.echo(
            f"the account of data set {settings.dataset!r} is open in {state.url}: kept for one {settings.budget.unit} "
            f"({settings.budget.adjacency}), for good; granted are ε = {settings.budget.epsilon:g} in all "
            f"(δ = {settings.budget.delta:g})"
        )


@privacy.command()
@click.argument("client", type=_FILE)
@click.option(
    "--run", "run", metavar="RUN", help="Look into the account that a run on this machine keeps for the client."
)
@click.option("--federation", type=_FILE, help="Also: what this federation.toml would take it to.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ledger(client: Path, run: str | None, federation: Path | None, as_json: bool) -> None:
    """Show what is spent, left, and next.

    CLIENT is a client.toml: what was spent on its data set, of what was granted; with --federation also what that
    federation would take it to, after one more round and at its end.
    """
    with plain_errors():
        settings = read_client(client)
        state = RunFolder(run_path(run)).state(settings.id) if run else _state(client, settings)
        found = _account(settings, state, federation)
        click.echo(json.dumps(found, indent=2) if as_json else _account_table(found))


@privacy.command(name="audit")
@click.argument("federation", type=_FILE)
@click.option("--client", metavar="ID", help="Whose round to audit  [default: the first of the roster]")
@click.option("--trials", type=click.IntRange(min=100), default=2000, show_default=True, help="Runs in each world.")
# A bound above the claim condemns the mechanism: at 95 % one sound mechanism in twenty could be.
@click.option("--confidence", type=click.FloatRange(0.5, 0.999999), default=0.9999, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def audit_command(federation: Path, client: str | None, trials: int, confidence: float, as_json: bool) -> None:
    """Bound ε from below, by canaries.

    Canaries go through one round of FEDERATION (a federation.toml), and what they give away bounds its ε. Exit
    status 1 if the bound is above the claim: then the mechanism is broken. An audit never proves a claim.
    """
    with plain_errors():
        from fedbucket.audit import audit_round  # half a second of statistics, which other commands need not wait for

        settings = read_federation(federation)
        found = audit_round(settings, client or settings.roster[0], trials, confidence, system_normals)
        click.echo(json.dumps(_audit(found), indent=2) if as_json else _audit_table(found, trials))
        if not found.kept:
            raise SystemExit(1)


def _audit(found: "Audited") -> dict[str, Any]:
    return {
        "unit": found.unit,
        "adjacency": found.adjacency,
        "delta": found.delta,
        "epsilon_claimed": found.claimed,
        "epsilon_audited": found.found.epsilon,
        "confidence": found.found.confidence,
        "kept": found.kept,
    }


def _audit_table(found: "Audited", trials: int) -> str:
    unit = f"unit: one {found.unit}, {found.adjacency}; δ = {found.delta:g}"
    verdict = "the claim stands" if found.kept else "the claim is refuted: the mechanism is broken"
    return (
        f"one round ({unit})\n"
        f"  claimed  ε = {found.claimed:.4f}\n"
        f"  audited  ε ≥ {found.found.epsilon:.4f} with {found.found.confidence:.2%} confidence, "
        f"{trials} runs in each world\n"
        f"{verdict}"
    )


def _state(path: Path, settings: ClientSettings) -> Store:
    if settings.state is None:
        raise SettingsError(
            str(path),
            [
                "state: is missing: the bucket for private state. `fedbucket run` keeps and opens accounts in its own "
                "folder: look into them by `fedbucket privacy ledger CLIENT --run RUN`"
            ],
        )
    return open_store(settings.state)


def _account(settings: ClientSettings, state: Store, federation: Path | None) -> dict[str, Any]:
    genesis, charges, _ = Ledger(state, settings.dataset).read()
    if (budget := settings.budget) is None:
        raise SettingsError(settings.id, ["budget: expected a [budget] section; δ is in it"])
    refuse_other_unit(genesis, "the budget", budget)
    found: dict[str, Any] = {
        "client": settings.id,
        "dataset": genesis.dataset,
        "unit": genesis.unit,
        "adjacency": genesis.adjacency,
        "delta": budget.delta,
        "epsilon_spent": epsilon(events_of(charges), budget.delta),
        "epsilon_budget": budget.epsilon,
        "charges": [charge.model_dump(mode="json") for charge in charges],
    }
    if federation is not None:
        found |= _ahead(settings.id, read_federation(federation), genesis, charges, budget.delta)
    return found


def _ahead(
    client: str, federation: FederationSettings, genesis: Genesis, charges: list[Charge], delta: float
) -> dict[str, Any]:
    """Return what the account comes to after one more round of `federation`, and at its end."""
    plan = make_plan(federation, client)
    if plan is not None:
        refuse_other_unit(genesis, f"the federation {federation.name}", plan.privacy)
    left = federation.rounds - sum(charge.settings_sha256 == federation.sha256 for charge in charges)
    spent, price = events_of(charges), plan.events if plan else ()
    return {
        "rounds_left": left,
        "epsilon_with_one_more_round": epsilon([*spent, *price], delta),
        "epsilon_with_all_rounds": epsilon([*spent, *price * left], delta),
    }


def _account_table(found: dict[str, Any]) -> str:
    unit = f"unit: one {found['unit']}, {found['adjacency']}; δ = {found['delta']:g}"
    rounds: dict[str, int] = {}
    for charge in found["charges"]:
        rounds[charge["federation"]] = rounds.get(charge["federation"], 0) + 1
    lines = [f"data set {found['dataset']} of {found['client']} ({unit})"]
    lines.append(f"  spent    ε = {found['epsilon_spent']:.4f} of {found['epsilon_budget']:g} granted")
    lines += [f"           {count} round{'s' * (count > 1)} of {federation}" for federation, count in rounds.items()]
    if (after := found.get("epsilon_with_one_more_round")) is not None:
        lines.append(f"  one more ε = {after:.4f}: {_verdict(after, found)}")
        if (left := found["rounds_left"]) > 1:
            end = found["epsilon_with_all_rounds"]
            lines.append(f"  all {left:<4} ε = {end:.4f}: {_verdict(end, found)}")
    return "\n".join(lines)


def _verdict(after: float, found: dict[str, Any]) -> str:
    return "within the budget" if after <= found["epsilon_budget"] else "beyond the budget: the client would withdraw"


def _calibration_table(found: dict[str, Any]) -> str:
    unit = f"unit: one {found['unit']}, {found['adjacency']}; δ = {found['delta']:g}"
    rounds = found["epsilon_by_round"]
    lines = [
        f"ε = {found['epsilon']:.6g} after {len(rounds)} rounds ({unit})",
        f"  z  noise multiplier     {found['noise_multiplier']:.6g}",
        f"  Δ  L2 sensitivity       {found['sensitivity']:.6g}",
        f"  σ  diffusion            {found['sigma']:.6g}",
        f"  a  contraction          {found['contraction']:.6g}",
        f"  s  noise a coordinate   {found['noise_sd']:.6g}",
        "  ε after each round      " + " ".join(f"{value:.3g}" for value in rounds),
    ]
    if found["epsilon"] > _LARGE_EPSILON:
        lines.append(
            f"  warning: ε above {_LARGE_EPSILON} promises little; take more noise, fewer rounds, or unit example"
        )
    if (examples := found["examples"]) is not None and found["delta"] * examples >= 1:
        lines.append(
            f"  warning: δ is not below 1/{examples}: to publish one of {examples} rows would keep this promise"
        )
    return "\n".join(lines)
