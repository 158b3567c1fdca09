"""What holds of every module and example under `infra/`, read without Terraform."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.infra.readmes import rendered
from tests.infra.terraform import EXAMPLES, INFRA, MODULES, blocks, named

SOURCES = sorted(path for path in INFRA.rglob("*.tf") if ".terraform" not in path.parts)
ROOTS = [*MODULES, *EXAMPLES]
# What grants, wakes or warns: none of it may go without an assertion.
ASSERTED = re.compile(
    r"iam_member|role_assignment|role_definition|federated|pool_provider|event_subscription|scheduler_job"
    r"|cloudfunctions2|function_app|alert|logging_metric|immutability|management_policy"
)
# Roles that overwrite or delete, or reach further than one bucket or function.
BROAD = re.compile(
    r"roles/(owner|editor|viewer|storage\.(admin|objectAdmin|objectUser|folderAdmin|legacy\w+)|iam\.\w+)"
    r"|\"(Owner|Contributor|Reader|Storage Account Contributor|Storage Queue Data Contributor)\""
)
KEYS = re.compile(
    r"google_service_account_key|google_storage_hmac_key|azuread_\w*password|_sas\"|access_key +=|connection_string +="
    r"|(primary|secondary)_\w*(access_key|connection_string)|storage_access_key"
)


def assertions_of(folder: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("tests/*.tftest.hcl")))


def test_the_modules_and_examples_are_seen():
    assert len(MODULES) >= 11
    assert len(EXAMPLES) == 10


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_the_readme_of_a_module_says_what_its_code_says(module: Path):
    text = (module / "README.md").read_text(encoding="utf-8")
    assert rendered(module, text) == text, "run: python -m tests.infra.readmes"
    for mark in ("example ", "inputs", "outputs"):
        assert text.count(f"<!-- {mark}") == text.count(f"<!-- /{mark.strip()}") == 1, mark


@pytest.mark.parametrize("folder", ROOTS, ids=named)
def test_every_variable_and_output_is_described_and_typed(folder: Path):
    for name, variable in blocks(folder, "variable").items():
        assert {"description", "type"} <= variable.keys(), name
    for name, output in blocks(folder, "output").items():
        assert "description" in output, name


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_every_validation_has_a_test_that_it_refuses(module: Path):
    refused = re.findall(r"expect_failures = \[var\.(\w+)\]", assertions_of(module))
    for name, variable in blocks(module, "variable").items():
        assert refused.count(name) >= len(variable.get("validation", [])), name


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_whatever_grants_or_wakes_or_warns_is_asserted(module: Path):
    text = assertions_of(module)
    resources = {name for name in blocks(module, "resource") if ASSERTED.search(name)}
    assert {name for name in resources if name not in text} == set()


@pytest.mark.parametrize("folder", ROOTS, ids=named)
def test_every_folder_is_tested_under_mock_providers_only(folder: Path):
    text = assertions_of(folder)
    used = {name for kind in ("resource", "data") for name in blocks(folder, kind)} or blocks(folder, "module").keys()
    assert not used or folder.name == "contract" or "mock_provider" in text
    assert 'run "' in text
    assert "command = apply" not in text


def test_nothing_is_granted_that_overwrites_or_deletes_or_is_broad():
    found = [
        f"{named(path)}: {role[0]}" for path in SOURCES for role in BROAD.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_rights_on_a_whole_project_are_granted_in_one_place():
    places = {named(path) for path in SOURCES if "google_project_iam" in path.read_text(encoding="utf-8")}
    assert places == {"modules/functions-gcp/identities.tf", "modules/functions-gcp/main.tf"}


def test_bindings_add_a_member_and_never_replace_what_others_granted():
    found = [named(path) for path in SOURCES if re.search(r'"google_\w+_iam_(binding|policy)"', path.read_text())]
    assert found == []


def test_there_are_no_keys_anywhere():
    allowed = "application_insights_connection_string = azurerm_application_insights.this.connection_string"
    for path in SOURCES:
        text = path.read_text(encoding="utf-8").replace(allowed, "")
        assert not KEYS.search(text), f"{named(path)}: {KEYS.search(text)}"


def test_what_azures_host_must_not_find_is_taken_away_whenever_the_provider_has_written_it():
    """A plan cannot show it: the provider writes both settings behind it, and reads neither back."""
    resources = blocks(INFRA / "modules" / "functions-azure", "resource")
    app, taken = "azurerm_function_app_flex_consumption.this", resources["terraform_data.by_identity"]
    assert app in str(taken["lifecycle"][0]["replace_triggered_by"])
    (command,) = (each["local-exec"]["command"] for each in map(without_quotes, taken["provisioner"]))
    assert "appsettings delete" in command
    assert "--setting-names AzureWebJobsStorage DEPLOYMENT_STORAGE_CONNECTION_STRING " in command
    assert "terraform_data.by_identity" in str(resources["terraform_data.published"]["depends_on"])


def without_quotes(block: dict[str, Any]) -> dict[str, Any]:
    return {name.strip('"'): value for name, value in block.items()}


def test_all_folders_ask_for_the_same_versions():
    wanted = {
        (name, re.search(rf'{name} = {{[^}}]*version = "([^"]*)"', path.read_text())[1])
        for path in SOURCES
        for name in re.findall(r'source +=\s+"hashicorp/(\w+)"', path.read_text())
    }
    assert len(wanted) == len({name for name, _ in wanted}) == 3
    assert (
        len(
            {
                re.search(r'required_version = "(.*)"', path.read_text())[1]
                for path in SOURCES
                if "required_version" in path.read_text()
            }
        )
        == 1
    )
