"""Settings: what is sound is known by one digest; what is not is refused with every mistake named."""

from __future__ import annotations

import copy
import hashlib
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.errors import InvalidDocument, SettingsError
from exchange.spec import (
    AzureInGoogle,
    ClientSettings,
    FederationSettings,
    GoogleInAzure,
    client_from_environment,
    parent_from_environment,
    read_client,
    read_federation,
    validate,
)

FEDERATION = """
name = "readmission"
rounds = 30

[round]
quorum = 2
deadline = "2h"

[train]
optimizer = "sgd"
learning_rate = 0.1
local_epochs = 1

[privacy]
mechanism = "none"

[[client]]
id = "hospital-b"
examples = 900

[[client]]
id = "hospital-a"
examples = 1200
inbox = "gs://hospital-a-inbox"
"""

CLIENT = """
id = "hospital-a"
data = "admissions.csv"
state = "file:///var/lib/fedbucket"

[[agreement]]
federation = "readmission"
task = "readmission.py"
parent = "gs://readmission-parent"
settings_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
max_rounds = 30
"""

MISSING = object()


def changed(text: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The settings in `text`, changed at paths such as `client.0.id`."""
    content = tomllib.loads(text)
    for path, value in changes.items():
        *folders, name = [int(part) if part.isdigit() else part for part in path.split(".")]
        place: Any = content
        for folder in folders:
            place = place[folder] if isinstance(folder, int) else place.setdefault(folder, {})
        if value is MISSING:
            del place[name]
        else:
            place[name] = value
    return content


def federation(**changes: Any) -> FederationSettings:
    return validate(FederationSettings, changed(FEDERATION, changes), "federation.toml")


def mistakes(text: str, kind: Any, changes: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        validate(kind, changed(text, changes), "settings.toml")
    return caught.value.problems


# What is sound


def test_sound_settings_are_read_with_every_default(tmp_path: Path) -> None:
    (tmp_path / "federation.toml").write_text(FEDERATION)
    settings = read_federation(tmp_path / "federation.toml")
    assert (settings.name, settings.rounds) == ("readmission", 30)
    assert (settings.round.quorum, settings.round.deadline) == (2, 7200)
    assert (settings.train.optimizer, settings.train.momentum, settings.train.batch_size) == ("sgd", 0.0, None)
    assert settings.privacy.mechanism == "none"
    assert settings.metrics.share == "none"
    assert (settings.stop.tolerance, settings.stop.patience) == (None, None)


def test_the_roster_is_sorted_and_finds_its_entries() -> None:
    settings = federation()
    assert settings.roster == ["hospital-a", "hospital-b"]
    entry = settings.entry("hospital-a")
    assert entry is not None
    assert (entry.examples, entry.inbox) == (1200, "gs://hospital-a-inbox")
    assert settings.entry("hospital-c") is None


def test_a_clients_settings_are_read_from_a_file_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "client.toml").write_text(CLIENT)
    settings = read_client(tmp_path / "client.toml")
    assert settings == client_from_environment({"FEDBUCKET_CLIENT": CLIENT})
    agreement = settings.agreement_on("readmission")
    assert agreement is not None
    assert (agreement.task, agreement.max_rounds, agreement.mechanisms) == ("readmission.py", 30, ("none",))
    assert not agreement.share_metrics
    assert settings.agreement_on("other") is None


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("2 h", 7200), ("001h", 3600), (45, 45)],
)
def test_a_duration_has_a_unit_or_is_in_seconds(written: object, seconds: int) -> None:
    assert federation(**{"round.deadline": written}).round.deadline == seconds


# What is not


NAMED = "1 to 63 lower-case letters, digits and inner hyphens"
DURATION = "a duration such as"
BUCKET = "a bucket: file://"

FEDERATION_MISTAKES: list[tuple[str, Any, str]] = [
    ("name", MISSING, "is missing"),
    ("name", "Readmission", NAMED),
    ("name", "", NAMED),
    ("name", "a/b", NAMED),
    ("name", "../x", NAMED),
    ("name", "a" * 64, NAMED),
    ("name", "a\n", NAMED),
    ("name", "ledger", "not 'ledger'"),
    ("name", 7, "a valid string"),
    ("rounds", MISSING, "is missing"),
    ("rounds", 0, "greater than or equal to 1"),
    ("rounds", -1, "greater than or equal to 1"),
    ("rounds", 10_001, "less than or equal to 10000"),
    ("rounds", 3.0, "a valid integer"),
    ("rounds", "3", "a valid integer"),
    ("rounds", True, "a valid integer"),
    ("round", MISSING, "is missing"),
    ("round", 3, "an object"),
    ("round.quorum", MISSING, "is missing"),
    ("round.quorum", 0, "greater than or equal to 1"),
    ("round.quorum", 3, "at most 2, the number of clients"),
    ("round.deadline", MISSING, "is missing"),
    ("round.deadline", "2 weeks", DURATION),
    ("round.deadline", "2", DURATION),
    ("round.deadline", "h", DURATION),
    ("round.deadline", "-2h", DURATION),
    ("round.deadline", "2.5h", DURATION),
    ("round.deadline", "2h\n", DURATION),
    ("round.deadline", "2H", DURATION),
    ("round.deadline", "0s", "greater than or equal to 1"),
    ("round.deadline", 2.5, "a valid integer"),
    ("round.max_update_norm", 0, "greater than 0"),
    ("round.max_update_norm", float("nan"), "a finite number"),
    ("round.patience", 3, "no such field"),
    ("train", MISSING, "is missing"),
    ("train.optimizer", "lamb", "'sgd' or 'adam'"),
    ("train.learning_rate", MISSING, "is missing"),
    ("train.learning_rate", 0, "greater than 0"),
    ("train.learning_rate", -0.1, "greater than 0"),
    ("train.learning_rate", float("nan"), "a finite number"),
    ("train.learning_rate", float("inf"), "a finite number"),
    ("train.learning_rate", "0.1", "a valid number"),
    ("train.momentum", 1.0, "less than 1"),
    ("train.local_epochs", 0, "greater than or equal to 1"),
    ("train.batch_size", 0, "greater than or equal to 1"),
    ("train.gradient_clip", 0.0, "greater than 0"),
    ("train.proximal_mu", -1.0, "greater than or equal to 0"),
    ("train.seed", -1, "greater than or equal to 0"),
    ("train.seed", 2**63, "less than 9223372036854775808"),
    ("train.lr", 0.1, "no such field"),
    ("privacy", MISSING, "is missing"),
    ("privacy.mechanism", MISSING, "is missing"),
    ("privacy.mechanism", "nothing", "'none'"),
    ("privacy.mechanism", 3, "got 3"),
    ("privacy.epsilon", 8.0, "no such field"),
    ("stop.tolerance", float("-inf"), "a finite number"),
    ("stop.patience", 3, "metrics.share"),
    ("metrics.share", "some", "'open'"),
    ("metrics.noise_multiplier", 1.0, 'share = "noised"'),
    ("client", MISSING, "is missing"),
    ("client", [], "at least 1 item"),
    ("client", {"id": "a"}, "a valid array"),
    ("client.0.id", MISSING, "is missing"),
    ("client.0.id", "Hospital A", NAMED),
    ("client.0.id", "hospital_a", NAMED),
    ("client.0.examples", MISSING, "is missing"),
    ("client.1.examples", 0, "greater than or equal to 1"),
    ("client.1.examples", 1e3, "a valid integer"),
    ("client.1.inbox", "https://bucket", "a whole bucket"),
    ("client.1.inbox", "gs://", "a whole bucket"),
    ("client.1.weight", 1, "no such field"),
    ("clients", [], "no such field"),
]

CLIENT_MISTAKES: list[tuple[str, Any, str]] = [
    ("id", MISSING, "is missing"),
    ("id", "A", NAMED),
    ("data", MISSING, "is missing"),
    ("data", 1, "a valid string"),
    ("state", "/var/lib", BUCKET),
    ("agreement", {}, "a valid array"),
    ("agreement.0.federation", MISSING, "is missing"),
    ("agreement.0.federation", "ledger", "not 'ledger'"),
    ("agreement.0.task", MISSING, "is missing"),
    ("agreement.0.parent", "bucket", BUCKET),
    ("agreement.0.settings_sha256", "0" * 63, "64 hexadecimal digits"),
    ("agreement.0.settings_sha256", "F" * 64, "64 hexadecimal digits"),
    ("agreement.0.mechanisms", "none", "a valid array"),
    ("agreement.0.max_rounds", 0, "greater than or equal to 1"),
    ("agreement.0.share_metrics", 1, "a valid boolean"),
    ("agreement.0.epsilons", 1.0, "no such field"),
    ("password", "secret", "no such field"),
]

ALL_MISTAKES = [(FEDERATION, FederationSettings, *mistake) for mistake in FEDERATION_MISTAKES] + [
    (CLIENT, ClientSettings, *mistake) for mistake in CLIENT_MISTAKES
]


def in_words(path: str) -> str:
    """`client.0.id` as an error writes it: `client[0].id`."""
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path.split(".")).lstrip(".")


@pytest.mark.parametrize(("text", "kind", "path", "value", "expectation"), ALL_MISTAKES)
def test_a_mistake_is_named_with_its_field_and_what_was_expected(
    text: str, kind: Any, path: str, value: Any, expectation: str
) -> None:
    (problem,) = mistakes(text, kind, {path: value})
    assert problem.startswith(f"{in_words(path)}: ")
    assert expectation in problem


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("name", "Readmission", 'got "Readmission"'),
        ("rounds", 0, "got 0"),
        ("rounds", True, "got true"),
        ("round.quorum", 3, "got 3"),
        ("round.deadline", "2 weeks", 'got "2 weeks"'),
        ("train.learning_rate", float("nan"), "got NaN"),
        ("train.lr", 0.1, "got 0.1"),
        ("client.1.inbox", "https://bucket", 'got "https://bucket"'),
    ],
)
def test_a_mistake_is_shown_as_it_came(path: str, value: Any, shown: str) -> None:
    assert mistakes(FEDERATION, FederationSettings, {path: value})[0].endswith(shown)


def test_all_mistakes_are_in_one_error() -> None:
    wrong = {"name": "A", "rounds": 0, "round.quorum": 0, "train.learning_rate": 0, "client.0.id": "B", "extra": 1}
    with pytest.raises(SettingsError) as caught:
        validate(FederationSettings, changed(FEDERATION, {**wrong, "privacy": MISSING}), "federation.toml")
    assert sorted(problem.partition(":")[0] for problem in caught.value.problems) == sorted(
        ["name", "rounds", "round.quorum", "train.learning_rate", "client[0].id", "extra", "privacy"]
    )
    assert str(caught.value).startswith("federation.toml: 7 mistakes\n")
    assert all(problem in str(caught.value) for problem in caught.value.problems)


def test_a_momentum_that_the_optimizer_lacks_is_named() -> None:
    found = mistakes(FEDERATION, FederationSettings, {"train.optimizer": "adam", "train.momentum": 0.9})
    assert found == ["train.momentum: is of sgd, expected 0 with adam, got 0.9"]


def test_all_contradictions_are_in_one_error() -> None:
    wrong = {"client.0.id": "hospital-a", "round.quorum": 3, "stop.patience": 2, "train.momentum": 0.9}
    found = mistakes(FEDERATION, FederationSettings, {"privacy": dict(MECHANISMS[1]), **wrong})
    assert [problem.partition(":")[0] for problem in found] == ["client", "round.quorum", "train", "stop.patience"]
    assert "hospital-a" in found[0]


def test_a_federation_without_a_privacy_section_is_refused() -> None:
    """No noise must be written out."""
    assert mistakes(FEDERATION, FederationSettings, {"privacy": MISSING}) == ["privacy: is missing"]


@pytest.mark.parametrize("read", [read_federation, read_client])
@pytest.mark.parametrize(
    "content",
    [
        b'name = "a',
        b"name = a",
        b"name",
        b'name = "a"\nname = "b"',
        b"[round]\n[round]",
        b'name = "\xff"',
        b"\0",
        b"{}",
        b"a = " + b"[" * 10**5 + b"]" * 10**5,
        b"a = " + b"{a = " * 10**4 + b"1" + b"}" * 10**4,
        b"a" + b".a" * 10**4 + b" = 1",
        b"[" + b"a." * 10**4 + b"a]",
        b"a = " + b"9" * 5000,
        b"a = 0x" + b"f" * 5000,
    ],
    ids=lambda content: repr(content[:20]),
)
def test_what_is_not_toml_is_refused_with_the_files_name(tmp_path: Path, read: Any, content: bytes) -> None:
    (tmp_path / "settings.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"settings\.toml: 1 mistake"):
        read(tmp_path / "settings.toml")


def test_a_missing_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml.*\n.*cannot be read"):
        read_federation(tmp_path / "absent.toml")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_federation(tmp_path)


def test_other_text_than_utf_8_is_told_and_its_byte_order_mark_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text('id = "a"\ndata = "Übersicht.csv"\n', encoding="latin-1")
    with pytest.raises(SettingsError, match="expected text in UTF-8, save it as that"):
        read_client(path)
    path.write_text('id = "a"\ndata = "Übersicht.csv"\n', encoding="utf-8-sig")  # as Windows' editor may save it
    assert read_client(path).data == "Übersicht.csv"


def test_missing_environment_settings_are_named() -> None:
    with pytest.raises(SettingsError, match="FEDBUCKET_CLIENT"):
        client_from_environment({"PATH": "/bin"})
    with pytest.raises(SettingsError, match=r"FEDBUCKET_CLIENT: 1 mistake\n.*not TOML"):
        client_from_environment({"FEDBUCKET_CLIENT": "id ="})


PARENT = """
bucket = "gs://parent"
time_limit = "9m"

[[identity]]
trust = "gcp-to-azure"
bucket = "az://hospitalinbox"
tenant = "11111111-1111-1111-1111-111111111111"
client = "22222222-2222-2222-2222-222222222222"

[[identity]]
trust = "azure-to-gcp"
bucket = "gs://laboratory-inbox"
provider = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/azure"
resource = "api://fedbucket"
"""


def test_the_parents_settings_come_from_the_environment_with_an_identity_for_each_cloud() -> None:
    settings = parent_from_environment({"FEDBUCKET_PARENT": PARENT})
    assert (settings.bucket, settings.time_limit, settings.workers) == ("gs://parent", 540, 1)
    assert [type(identity) for identity in settings.identity] == [GoogleInAzure, AzureInGoogle]
    with pytest.raises(SettingsError, match=r"FEDBUCKET_PARENT: expected the text of a parent\.toml"):
        parent_from_environment({"FEDBUCKET_CLIENT": CLIENT})
    with pytest.raises(SettingsError, match=r"identity\[0\]\.trust: expected one of 'gcp-to-azure', 'azure-to-gcp'"):
        parent_from_environment({"FEDBUCKET_PARENT": PARENT.replace("gcp-to-azure", "both-ways")})


@pytest.mark.parametrize(
    "url", ["gs://parent/hospitals", "az://account/parent/hospitals", "az://account", "s3://parent/a/"]
)
def test_a_bucket_that_wakes_functions_is_a_whole_one(url: str) -> None:
    with pytest.raises(SettingsError, match="bucket: expected a whole bucket"):
        parent_from_environment({"FEDBUCKET_PARENT": PARENT.replace("gs://parent", url)})
    with pytest.raises(SettingsError, match="inbox: expected a whole bucket"):
        client_from_environment({"FEDBUCKET_CLIENT": f'id = "alder"\ndata = "d"\ninbox = "{url}"\n'})


def test_an_identity_is_for_buckets_of_the_other_cloud() -> None:
    turned = PARENT.replace("az://hospitalinbox", "gs://b").replace("gs://laboratory-inbox", "az://a/c")
    with pytest.raises(SettingsError) as caught:
        parent_from_environment({"FEDBUCKET_PARENT": turned})
    assert [problem.partition(": expected a bucket in")[0] for problem in caught.value.problems] == [
        "identity[0].bucket",
        "identity[1].bucket",
    ]


# The digest


def test_published_settings_are_read_back_with_the_same_digest() -> None:
    settings = federation()
    again = FederationSettings.from_bytes(settings.to_bytes(), "readmission/public/federation.json")
    assert again == settings
    assert again.sha256 == settings.sha256


def test_the_digest_does_not_depend_on_how_settings_are_spelled() -> None:
    plain = federation()
    spelled = federation(
        **{"round.deadline": 7200, "train.momentum": 0, "train.local_epochs": 1, "stop": {}, "metrics.share": "none"}
    )
    assert spelled.sha256 == plain.sha256
    reordered = dict(reversed(changed(FEDERATION, {}).items()))
    assert validate(FederationSettings, reordered, "federation.toml").sha256 == plain.sha256


def test_the_digest_stays_what_it_was() -> None:
    """Clients pin a digest of these bytes: a setting more, and every running federation must be agreed to anew."""
    assert federation().to_bytes() == (Path(__file__).parent / "federation.json").read_bytes()


OTHERS: dict[str, Any] = {
    "name": "other",
    "rounds": 31,
    "round.quorum": 1,
    "round.deadline": "121m",
    "round.max_update_norm": 10.0,
    "train.optimizer": "adam",
    "train.learning_rate": 0.10000000000000002,
    "train.momentum": 0.9,
    "train.local_epochs": 2,
    "train.batch_size": 32,
    "train.gradient_clip": 1.0,
    "train.proximal_mu": 0.01,
    "train.seed": 1,
    "stop.tolerance": 1e-3,
    "stop.metric": "auc",
    "metrics.share": "open",
    "client.0.id": "hospital-c",
    "client.0.examples": 901,
    "client.0.inbox": "gs://hospital-b-inbox",
    "client.1.inbox": "gs://hospital-a-inbox2",
}


NOISED: dict[str, Any] = {
    "privacy": {"mechanism": "ornstein-uhlenbeck", "unit": "example", "epsilon": 8.0, "delta": 1e-5, "clip_norm": 1.0},
    "metrics": {"share": "noised", "noise_multiplier": 5.0},
    "client.0.validation_examples": 100,
    "client.1.validation_examples": 100,
}
OTHERS_NOISED = [("rounds", 30), ("metrics.noise_multiplier", 6.0), ("client.1.validation_examples", 101)]


def test_a_metric_that_is_not_shared_cannot_stop_a_federation() -> None:
    assert federation(**NOISED, **{"stop.patience": 2}).stop.metric == "accuracy"
    with pytest.raises(SettingsError, match='"noised" shares the accuracy only, expected "accuracy", got "auc"'):
        federation(**NOISED, **{"stop.patience": 2, "stop.metric": "auc"})


def test_any_other_setting_gives_another_digest() -> None:
    digests = [federation().sha256, *(federation(**{path: value}).sha256 for path, value in OTHERS.items())]
    digests += [federation(**{"metrics.share": "open", "stop.patience": patience}).sha256 for patience in (2, 3)]
    digests += [federation(**{**NOISED, path: value}).sha256 for path, value in OTHERS_NOISED]
    assert len(set(digests)) == len(digests)


def test_every_setting_is_tried() -> None:
    paths = [*OTHERS, *(path for path, _ in OTHERS_NOISED), "stop.patience"]
    tried = {path.replace(".0.", ".").replace(".1.", ".") for path in paths}
    assert settable(FederationSettings) - {"privacy", "strategy"} == tried


def settable(kind: Any) -> set[str]:
    """Paths of all settings but those of the privacy mechanisms and of the strategies."""
    sections = {"round", "train", "stop", "metrics", "client"}
    found = set()
    for name, field in kind.model_fields.items():
        if kind is FederationSettings and name in sections:
            section = field.annotation if name != "client" else field.annotation.__args__[0]
            found |= {f"{name}.{inner}" for inner in section.model_fields}
        else:
            found.add(name)
    return found


MECHANISMS = [
    {"mechanism": "none"},
    {"mechanism": "ornstein-uhlenbeck", "unit": "example"},
    {"mechanism": "ornstein-uhlenbeck", "unit": "client"},
    {"mechanism": "ornstein-uhlenbeck", "unit": "client", "adjacency": "replace-one"},
    {"mechanism": "dp-sgd", "sampling_probability": 0.1},
]
for mechanism in MECHANISMS[1:]:
    mechanism |= {"epsilon": 8.0, "delta": 1e-5, "clip_norm": 1.0}


@pytest.mark.parametrize("privacy", MECHANISMS)
def test_every_mechanism_is_read_back_as_it_was_published(privacy: dict[str, Any]) -> None:
    settings = federation(privacy=privacy)
    again = FederationSettings.from_bytes(settings.to_bytes(), "federation.json")
    assert again == settings
    assert again.sha256 == settings.sha256


@pytest.mark.parametrize("privacy", MECHANISMS[1:])
@pytest.mark.parametrize(
    ("name", "value", "expectation"),
    [
        ("epsilon", MISSING, "is missing"),
        ("epsilon", 0, "greater than 0"),
        ("epsilon", float("inf"), "a finite number"),
        ("delta", 1.0, "less than 1"),
        ("delta", MISSING, "is missing"),
        ("clip_norm", -1.0, "greater than 0"),
        ("noise", 1.0, "no such field"),
    ],
)
def test_a_mistake_in_a_mechanism_is_named(privacy: dict[str, Any], name: str, value: Any, expectation: str) -> None:
    changes = {"privacy": dict(privacy), f"privacy.{name}": value}
    (problem,) = mistakes(FEDERATION, FederationSettings, changes)
    assert problem.startswith(f"privacy.{name}: ")
    assert expectation in problem


def test_any_other_mechanism_gives_another_digest() -> None:
    digests = {federation(privacy=privacy).sha256 for privacy in [*MECHANISMS[:3], MECHANISMS[4]]}
    digests |= {federation(privacy={**MECHANISMS[1], name: 0.5}).sha256 for name in ("epsilon", "delta", "clip_norm")}
    assert len(digests) == 7


STRATEGIES: list[dict[str, Any]] = [
    {"name": "fedavg", "weights": "uniform"},
    {"name": "fedavgm"},
    {"name": "fedavgm", "learning_rate": 0.5, "momentum": 0.0},
    {"name": "fedadam", "learning_rate": 0.1},
    {"name": "fedyogi", "learning_rate": 0.1},
    {"name": "fedyogi", "learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "tau": 0.01},
    {"name": "fedadagrad", "learning_rate": 0.1},
    {"name": "fedadagrad", "learning_rate": 0.1, "beta_1": 0.8, "tau": 0.01},
    {"name": "median"},
    {"name": "trimmed-mean", "byzantine": 1},
    {"name": "multi-krum", "byzantine": 1},
    {"name": "multi-krum", "byzantine": 1, "select": 2, "weights": "examples"},
]


def of_five(**changes: Any) -> dict[str, Any]:
    """Changes that make a federation of five clients, all of them its quorum."""
    clients = [{"id": f"hospital-{letter}", "examples": 100} for letter in "abcde"]
    return {"client": clients, "round.quorum": 5} | changes


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_is_read_back_as_it_was_published(strategy: dict[str, Any]) -> None:
    settings = federation(**of_five(strategy=strategy))
    again = FederationSettings.from_bytes(settings.to_bytes(), "federation.json")
    assert again == settings
    assert settings.strategy.model_dump().items() >= strategy.items()


def test_any_other_strategy_gives_another_digest() -> None:
    digests = {federation(**of_five(strategy=strategy)).sha256 for strategy in STRATEGIES}
    assert len(digests | {federation(**of_five()).sha256}) == len(STRATEGIES) + 1


def test_settings_that_were_published_before_there_were_strategies_mean_the_mean_and_keep_their_digest() -> None:
    settings = federation()
    section = b'  "strategy": {\n    "name": "fedavg",\n    "weights": "examples"\n  },\n'
    earlier = settings.to_bytes().replace(section, b"")
    assert len(earlier) < len(settings.to_bytes())
    again = FederationSettings.from_bytes(earlier, "federation.json")
    assert again.strategy == settings.strategy
    assert again.sha256 == hashlib.sha256(earlier).hexdigest()


PRECISION = {"strategy": {"name": "fedavg", "weights": "precision"}}
STRATEGY_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"strategy": {}}, "strategy.name: is missing"),
    ({"strategy": {"name": "sum"}}, "strategy.name: expected one of"),
    ({"strategy": {"name": "fedavg", "learning_rate": 1.0}}, "strategy.learning_rate: no such field"),
    ({"strategy": {"name": "fedavg", "weights": "votes"}}, "strategy.weights: expected 'examples', 'uniform' or"),
    ({"strategy": {"name": "fedavgm", "momentum": 1.0}}, "strategy.momentum: expected less than 1"),
    ({"strategy": {"name": "fedadam"}}, "strategy.learning_rate: is missing"),
    ({"strategy": {"name": "fedadam", "learning_rate": 0.1, "tau": 0.0}}, "strategy.tau: expected greater than 0"),
    ({"strategy": {"name": "median", "weights": "examples"}}, "strategy.weights: no such field"),
    ({"strategy": {"name": "trimmed-mean"}}, "strategy.byzantine: is missing"),
    ({"strategy": {"name": "trimmed-mean", "byzantine": 3}}, "strategy.byzantine: something must be left of 5"),
    ({"strategy": {"name": "trimmed-mean", "byzantine": 2}, "round.quorum": 4}, "strategy.byzantine: something"),
    ({"strategy": {"name": "multi-krum", "byzantine": 1}, "round.quorum": 4}, "strategy.byzantine: multi-krum needs"),
    ({"strategy": {"name": "multi-krum", "byzantine": 2}}, "strategy.byzantine: multi-krum needs 2f + 3 updates"),
    ({"strategy": {"name": "multi-krum", "byzantine": 1, "select": 5}}, "strategy.select: expected at most 4"),
    (PRECISION, 'strategy.weights: "precision" weighs by the known noise'),
    (PRECISION | {"privacy": {**MECHANISMS[1], "debias": "optimal"}}, 'strategy.weights: "precision" weighs'),
]


@pytest.mark.parametrize(("changes", "expectation"), STRATEGY_MISTAKES)
def test_a_mistake_in_the_strategy_is_named(changes: dict[str, Any], expectation: str) -> None:
    (problem,) = mistakes(FEDERATION, FederationSettings, of_five(**changes))
    assert problem.startswith(expectation)


names = st.from_regex(r"\A[a-z]([a-z-]{0,8}[a-z])?\Z")


@given(
    st.dictionaries(names, st.integers(1, 10**9), min_size=1, max_size=5),
    st.integers(1, 10_000),
    st.floats(1e-12, 1e12),
    st.data(),
)
def test_any_sound_settings_survive_publication(
    roster: dict[str, int], rounds: int, learning_rate: float, data: st.DataObject
) -> None:
    content = changed(FEDERATION, {"rounds": rounds, "train.learning_rate": learning_rate})
    content["client"] = [{"id": name, "examples": examples} for name, examples in roster.items()]
    content["round"]["quorum"] = data.draw(st.integers(1, len(roster)))
    settings = validate(FederationSettings, copy.deepcopy(content), "federation.toml")
    assert FederationSettings.from_bytes(settings.to_bytes(), "federation.json") == settings
    assert settings.roster == sorted(roster)


def test_published_settings_without_privacy_are_refused() -> None:
    content = federation().to_bytes().replace(b'"mechanism"', b'"mechanisms"')
    with pytest.raises(InvalidDocument, match="privacy"):
        FederationSettings.from_bytes(content, "federation.json")
