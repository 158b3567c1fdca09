mock_provider "azuread" {
  override_during = plan
}

mock_provider "azurerm" {
  override_during = plan
  mock_data "azurerm_client_config" {
    defaults = { tenant_id = "11111111-1111-4111-8111-111111111111", subscription_id = "00000000-0000-4000-8000-000000000000" }
  }
  mock_resource "azurerm_storage_account" {
    defaults = { id = "/account" }
  }
  mock_resource "azurerm_role_definition" {
    defaults = { role_definition_resource_id = "/role/create" }
  }
  mock_resource "azurerm_user_assigned_identity" {
    defaults = {
      id           = "/identity/x"
      principal_id = "99999999-9999-4999-8999-999999999999"
      client_id    = "33333333-3333-4333-8333-333333333333"
      tenant_id    = "11111111-1111-4111-8111-111111111111"
    }
  }
}

override_resource {
  target          = azurerm_user_assigned_identity.this
  override_during = plan
  values          = { id = "/identity/own", principal_id = "22222222-2222-4222-8222-222222222222", client_id = "44444444-4444-4444-8444-444444444444", tenant_id = "11111111-1111-4111-8111-111111111111" }
}

override_resource {
  target          = module.storage.azurerm_storage_container.this["parent"]
  override_during = plan
  values          = { id = "/account/container/parent" }
}

variables {
  name                = "consortium"
  resource_group_name = "g"
  location            = "westeurope"
  package             = "main.tf"
  clients = {
    hospital-a = {
      federations = ["readmission", "sepsis"]
      gcp         = { service_account = "run@hospital-a.iam.gserviceaccount.com", unique_id = "100000000000000000001" }
      inbox       = { bucket = "gs://hospital-a-inbox", provider = "//iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/pool/providers/entra" }
    }
    clinic-b = {
      federations = ["readmission"]
      azure       = { tenant = "11111111-1111-4111-8111-111111111111", principal = "55555555-5555-4555-8555-555555555555", audience = "api://11111111-1111-4111-8111-111111111111/clinicb" }
      inbox       = { bucket = "az://clinicb/inbox" }
    }
  }
}

run "a_client_has_one_assignment_on_this_container_under_its_own_condition" {
  command = plan
  assert {
    condition = { for name, each in azurerm_role_assignment.client : name => "${each.role_definition_id} on ${each.scope} for ${each.principal_id}" } == {
      hospital-a = "/role/create on /account/container/parent for 99999999-9999-4999-8999-999999999999"
      clinic-b   = "/role/create on /account/container/parent for 55555555-5555-4555-8555-555555555555"
    }
    error_message = "Expected the identity that stands for the client in GCP, and the client's own one in Azure."
  }
  assert {
    condition     = alltrue([for name, each in azurerm_role_assignment.client : each.condition == module.client_contract[name].abac_conditions.updates && each.condition != null && each.condition_version == "2.0"])
    error_message = "Expected each client's own condition."
  }
  assert {
    condition     = strcontains(azurerm_role_assignment.client["hospital-a"].condition, "sepsis/updates/hospital-a/") && !strcontains(azurerm_role_assignment.client["clinic-b"].condition, "sepsis") && !strcontains(azurerm_role_assignment.client["clinic-b"].condition, "hospital-a") && strcontains(azurerm_role_assignment.client["clinic-b"].condition, "StringEquals 'parent'")
    error_message = "Expected a client's own federations and its own prefix."
  }
}

run "nobody_may_overwrite_or_delete" {
  command = plan
  assert {
    condition = azurerm_role_definition.create.permissions[0].data_actions == tolist([
      "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
      "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/add/action",
    ])
    error_message = "Expected to read and to add."
  }
  assert {
    condition     = length(azurerm_role_definition.create.permissions[0].actions) == 0 && azurerm_role_definition.create.assignable_scopes == tolist(["/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/g"])
    error_message = "Expected no right of management, and no use outside the resource group."
  }
  assert {
    condition     = azurerm_role_assignment.parent.scope == "/account/container/parent" && azurerm_role_assignment.parent.principal_id == "22222222-2222-4222-8222-222222222222" && azurerm_role_assignment.parent.role_definition_id == "/role/create"
    error_message = "Expected the parent in its own container."
  }
}

run "staged_blocks_are_a_choice_and_bounded" {
  command = plan
  variables {
    staged_blocks = true
  }
  assert {
    condition     = contains(azurerm_role_definition.create.permissions[0].data_actions, "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write") && alltrue([for each in azurerm_role_assignment.client : strcontains(each.condition, "blobs/write'}")])
    error_message = "Expected the right to write, under every client's condition."
  }
}

run "new_blobs_of_the_parent_container_wake_the_functions" {
  command = plan
  assert {
    condition     = module.functions.watched == { account_id = "/account", begins_with = "/blobServices/default/containers/parent/blobs/", ends_with = "", contains = tolist(["/public/models/", "/updates/", "/receipts/"]) }
    error_message = "Expected models, updates and receipts."
  }
  assert {
    condition     = module.functions.alerts == { rejected = module.contract.log_patterns.rejected, late = module.contract.log_patterns.late }
    error_message = "Expected alerts on rejected updates and late rounds."
  }
}

run "the_settings_name_the_container_and_the_way_into_gcp" {
  command = plan
  assert {
    condition     = output.settings == "bucket = \"az://consortium/parent\"\ntime_limit = \"600s\"\nworkers = 1\n\n[[identity]]\nbucket = \"gs://hospital-a-inbox\"\nprovider = \"//iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/pool/providers/entra\"\nresource = \"api://11111111-1111-4111-8111-111111111111/consortium\"\ntrust = \"azure-to-gcp\"\n\n"
    error_message = "Expected parent.toml."
  }
}

run "the_cards_hold_public_identifiers" {
  command = plan
  assert {
    condition = output.card == {
      bucket = "az://consortium/parent"
      gcp    = null
      azure  = { tenant = "11111111-1111-4111-8111-111111111111", principal = "22222222-2222-4222-8222-222222222222", audience = "api://11111111-1111-4111-8111-111111111111/consortium" }
      access = null
    }
    error_message = "Expected who the parent is."
  }
  assert {
    condition     = output.cards["hospital-a"].access.client == "33333333-3333-4333-8333-333333333333" && output.cards["hospital-a"].access.tenant == "11111111-1111-4111-8111-111111111111" && output.cards["clinic-b"].access == null
    error_message = "Expected the way in for the client in GCP, and none for the other."
  }
}

run "a_client_in_another_tenant_is_refused_with_the_reason" {
  command = plan
  variables {
    clients = { clinic-b = { federations = ["readmission"], azure = { tenant = "66666666-6666-4666-8666-666666666666", principal = "55555555-5555-4555-8555-555555555555", audience = "api://x" } } }
  }
  expect_failures = [azurerm_role_assignment.client]
}

run "a_name_with_a_hyphen_is_refused" {
  command = plan
  variables {
    name = "fed-bucket"
  }
  expect_failures = [var.name]
}

run "a_client_of_six_federations_is_refused" {
  command = plan
  variables {
    clients = { a = { federations = [for number in range(6) : "f${number}"], gcp = { service_account = "x", unique_id = "100000000000000000001" } } }
  }
  expect_failures = [var.clients]
}

run "a_client_in_two_clouds_is_refused" {
  command = plan
  variables {
    clients = { a = {
      federations = ["readmission"]
      gcp         = { service_account = "x", unique_id = "100000000000000000001" }
      azure       = { tenant = "11111111-1111-4111-8111-111111111111", principal = "55555555-5555-4555-8555-555555555555", audience = "api://x" }
    } }
  }
  expect_failures = [var.clients]
}

run "a_client_by_its_name_is_refused" {
  command = plan
  variables {
    clients = { a = { federations = ["readmission"], azure = { tenant = "11111111-1111-4111-8111-111111111111", principal = "clinic-b", audience = "api://x" } } }
  }
  expect_failures = [var.clients]
}

run "an_inbox_elsewhere_is_refused" {
  command = plan
  variables {
    clients = { a = { federations = ["readmission"], gcp = { service_account = "x", unique_id = "100000000000000000001" }, inbox = { bucket = "s3://a" } } }
  }
  expect_failures = [var.clients]
}

run "an_inbox_in_gcp_without_a_way_in_is_refused" {
  command = plan
  variables {
    clients = { a = { federations = ["readmission"], gcp = { service_account = "x", unique_id = "100000000000000000001" }, inbox = { bucket = "gs://a" } } }
  }
  expect_failures = [var.clients]
}
