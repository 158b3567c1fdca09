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
  target          = module.storage.azurerm_storage_container.this["inbox"]
  override_during = plan
  values          = { id = "/account/container/inbox" }
}

override_resource {
  target          = module.storage.azurerm_storage_container.this["state"]
  override_during = plan
  values          = { id = "/account/container/state" }
}

variables {
  name                = "clinicb"
  resource_group_name = "g"
  location            = "westeurope"
  package             = "main.tf"
  client_toml         = "id = \"clinic-b\"\ndata = \"rows\"\n"
  data_container_id   = "/subscriptions/0/resourceGroups/d/providers/Microsoft.Storage/storageAccounts/data/blobServices/default/containers/rows"
  parents = {
    consortium = {
      federations = ["readmission"]
      bucket      = "gs://parent"
      gcp         = { service_account = "fedbucket@parent-project.iam.gserviceaccount.com", unique_id = "104321098765432109876" }
      access      = { provider = "//iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/pool/providers/entra" }
    }
    ministry = {
      federations = ["census"]
      bucket      = "az://ministry/parent"
      azure       = { tenant = "11111111-1111-4111-8111-111111111111", principal = "55555555-5555-4555-8555-555555555555", audience = "api://11111111-1111-4111-8111-111111111111/ministry" }
    }
  }
}

run "a_parent_has_one_assignment_on_the_inbox_under_its_own_condition" {
  command = plan
  assert {
    condition = { for name, each in azurerm_role_assignment.parent : name => "${each.role_definition_id} on ${each.scope} for ${each.principal_id}" } == {
      consortium = "/role/create on /account/container/inbox for 99999999-9999-4999-8999-999999999999"
      ministry   = "/role/create on /account/container/inbox for 55555555-5555-4555-8555-555555555555"
    }
    error_message = "Expected the identity that stands for the parent in GCP, and the parent's own one in Azure."
  }
  assert {
    condition     = alltrue([for name, each in azurerm_role_assignment.parent : each.condition == module.parent_contract[name].abac_conditions.inbox && each.condition != null && each.condition_version == "2.0"])
    error_message = "Expected each parent's own condition."
  }
  assert {
    condition     = strcontains(azurerm_role_assignment.parent["consortium"].condition, "readmission/inbox/") && !strcontains(azurerm_role_assignment.parent["consortium"].condition, "census")
    error_message = "Expected a parent's own federations."
  }
}

run "private_state_and_data_have_the_clients_own_assignments_and_no_other" {
  command = plan
  assert {
    condition     = azurerm_role_assignment.state.scope == "/account/container/state" && azurerm_role_assignment.state.principal_id == "22222222-2222-4222-8222-222222222222" && azurerm_role_assignment.state.role_definition_id == "/role/create"
    error_message = "Expected the client itself in its state, to create and read."
  }
  assert {
    condition = { for name, each in azurerm_role_assignment.read : name => "${each.role_definition_name} on ${each.scope} for ${each.principal_id}" } == {
      inbox = "Storage Blob Data Reader on /account/container/inbox for 22222222-2222-4222-8222-222222222222"
      data  = "Storage Blob Data Reader on /subscriptions/0/resourceGroups/d/providers/Microsoft.Storage/storageAccounts/data/blobServices/default/containers/rows for 22222222-2222-4222-8222-222222222222"
    }
    error_message = "Expected the client itself to read its inbox and its data, and to change neither."
  }
  assert {
    condition     = alltrue([for each in azurerm_role_assignment.parent : each.scope == "/account/container/inbox"])
    error_message = "Expected the parents in the inbox only."
  }
  assert {
    condition = azurerm_role_definition.create.permissions[0].data_actions == tolist([
      "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
      "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/add/action",
    ]) && length(azurerm_role_definition.create.permissions[0].actions) == 0 && azurerm_role_definition.create.assignable_scopes == tolist(["/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/g"])
    error_message = "Expected to read and to add, in this resource group."
  }
}

run "staged_blocks_are_a_choice_and_bounded" {
  command = plan
  variables {
    staged_blocks = true
  }
  assert {
    condition     = contains(azurerm_role_definition.create.permissions[0].data_actions, "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write") && alltrue([for each in azurerm_role_assignment.parent : strcontains(each.condition, "blobs/write'}")])
    error_message = "Expected the right to write, under every parent's condition."
  }
}

run "a_ticket_wakes_the_functions" {
  command = plan
  assert {
    condition     = module.functions.watched == { account_id = "/account", begins_with = "/blobServices/default/containers/inbox/blobs/", ends_with = ".json", contains = tolist(["/inbox/"]) }
    error_message = "Expected tickets."
  }
  assert {
    condition     = module.functions.alerts == { for name in ["budget", "refused", "left_out"] : name => module.contract.log_patterns[name] }
    error_message = "Expected alerts on a spent budget, on what was not agreed, on what was not averaged."
  }
}

run "the_settings_are_client_toml_and_what_is_known_here" {
  command = plan
  assert {
    condition     = output.settings == "state = \"az://clinicb/state\"\ntime_limit = \"1800s\"\ninbox = \"az://clinicb/inbox\"\nid = \"clinic-b\"\ndata = \"rows\"\n\n[[identity]]\nbucket = \"gs://parent\"\nprovider = \"//iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/pool/providers/entra\"\nresource = \"api://11111111-1111-4111-8111-111111111111/clinicb\"\ntrust = \"azure-to-gcp\"\n"
    error_message = "Expected client.toml."
  }
}

run "torch_comes_with_the_package" {
  command = plan
  assert {
    condition     = !module.functions.remote_build
    error_message = "Expected no build by Azure, which ends after a minute."
  }
}

run "the_cards_hold_public_identifiers" {
  command = plan
  assert {
    condition = output.cards["consortium"] == {
      gcp   = null
      azure = { tenant = "11111111-1111-4111-8111-111111111111", principal = "22222222-2222-4222-8222-222222222222", audience = "api://11111111-1111-4111-8111-111111111111/clinicb" }
      inbox = { bucket = "az://clinicb/inbox", tenant = "11111111-1111-4111-8111-111111111111", client = "33333333-3333-4333-8333-333333333333", provider = null }
    }
    error_message = "Expected who the client is, and the way into its inbox."
  }
  assert {
    condition     = output.cards["ministry"].inbox == { bucket = "az://clinicb/inbox", tenant = null, client = null, provider = null }
    error_message = "Expected no way in for a parent that needs none."
  }
}

run "without_an_inbox_no_parent_has_any_right_here" {
  command = plan
  variables {
    inbox             = false
    data_container_id = null
  }
  assert {
    condition     = length(azurerm_role_assignment.parent) == 0 && length(module.trust) == 0 && length(azurerm_role_assignment.read) == 0
    error_message = "Expected no assignment of a parent, and no trust."
  }
  assert {
    condition     = module.functions.watched == null && output.cards["consortium"].inbox == null && !strcontains(output.settings, "inbox")
    error_message = "Expected a timer, and no inbox anywhere."
  }
}

run "a_parent_in_another_tenant_is_refused_with_the_reason" {
  command = plan
  variables {
    parents = { ministry = { federations = ["census"], bucket = "az://ministry/parent", azure = { tenant = "66666666-6666-4666-8666-666666666666", principal = "55555555-5555-4555-8555-555555555555", audience = "api://x" } } }
  }
  expect_failures = [azurerm_role_assignment.parent]
}

run "a_name_with_a_hyphen_is_refused" {
  command = plan
  variables {
    name = "clinic-b"
  }
  expect_failures = [var.name]
}

run "a_whole_account_of_data_is_refused" {
  command = plan
  variables {
    data_container_id = "/subscriptions/0/resourceGroups/d/providers/Microsoft.Storage/storageAccounts/data"
  }
  expect_failures = [var.data_container_id]
}

run "settings_without_an_id_are_refused" {
  command = plan
  variables {
    client_toml = "data = \"rows\""
  }
  expect_failures = [var.client_toml]
}

run "settings_that_name_the_inbox_are_refused" {
  command = plan
  variables {
    client_toml = "id = \"clinic-b\"\ninbox = \"az://elsewhere/inbox\"\n"
  }
  expect_failures = [var.client_toml]
}

run "a_parent_without_a_federation_is_refused" {
  command = plan
  variables {
    parents = { p = { federations = [], bucket = "gs://parent", gcp = { service_account = "x", unique_id = "104321098765432109876" } } }
  }
  expect_failures = [var.parents]
}

run "a_federation_of_two_parents_is_refused" {
  command = plan
  variables {
    parents = {
      p = { federations = ["readmission"], bucket = "gs://p", gcp = { service_account = "x", unique_id = "104321098765432109876" } }
      q = { federations = ["readmission"], bucket = "gs://q", gcp = { service_account = "y", unique_id = "104321098765432109877" } }
    }
  }
  expect_failures = [var.parents]
}

run "a_parent_in_no_cloud_is_refused" {
  command = plan
  variables {
    parents = { p = { federations = ["readmission"], bucket = "gs://parent" } }
  }
  expect_failures = [var.parents]
}

run "a_parent_in_azure_with_a_bucket_in_gcp_is_refused" {
  command = plan
  variables {
    parents = { p = { federations = ["readmission"], bucket = "gs://parent", azure = { tenant = "11111111-1111-4111-8111-111111111111", principal = "55555555-5555-4555-8555-555555555555", audience = "api://x" } } }
  }
  expect_failures = [var.parents]
}

run "a_parent_by_its_name_is_refused" {
  command = plan
  variables {
    parents = { p = { federations = ["readmission"], bucket = "az://ministry/parent", azure = { tenant = "11111111-1111-4111-8111-111111111111", principal = "ministry", audience = "api://x" } } }
  }
  expect_failures = [var.parents]
}
