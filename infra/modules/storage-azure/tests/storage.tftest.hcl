mock_provider "azurerm" {
  override_during = plan
  mock_resource "azurerm_storage_account" {
    defaults = { id = "/subscriptions/0/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/acct" }
  }
  mock_resource "azurerm_storage_container" {
    defaults = { id = "/subscriptions/0/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/acct/blobServices/default/containers/parent" }
  }
}

variables {
  name                = "acct"
  resource_group_name = "g"
  location            = "westeurope"
  containers          = ["parent"]
}

run "there_are_no_keys_and_nothing_is_public" {
  command = plan
  assert {
    condition     = !azurerm_storage_account.this.shared_access_key_enabled && azurerm_storage_account.this.default_to_oauth_authentication && !azurerm_storage_account.this.local_user_enabled
    error_message = "Expected no shared keys and no local users."
  }
  assert {
    condition     = !azurerm_storage_account.this.allow_nested_items_to_be_public && azurerm_storage_container.this["parent"].container_access_type == "private" && !azurerm_storage_account.this.cross_tenant_replication_enabled
    error_message = "Expected private containers."
  }
  assert {
    condition     = azurerm_storage_account.this.min_tls_version == "TLS1_2" && azurerm_storage_account.this.https_traffic_only_enabled && azurerm_storage_account.this.infrastructure_encryption_enabled
    error_message = "Expected TLS 1.2 and nothing less."
  }
}

run "nothing_is_lost_by_a_deletion" {
  command = plan
  assert {
    condition     = azurerm_storage_account.this.blob_properties[0].versioning_enabled && azurerm_storage_account.this.blob_properties[0].delete_retention_policy[0].days == 30 && azurerm_storage_account.this.blob_properties[0].container_delete_retention_policy[0].days == 30
    error_message = "Expected versions, and 30 days of soft delete."
  }
  assert {
    condition     = length(azurerm_storage_account.this.customer_managed_key) == 0 && length(azurerm_storage_container_immutability_policy.this) == 0 && length(azurerm_storage_management_policy.this) == 0
    error_message = "Expected Microsoft's keys, no retention, and nothing that expires, unless they are asked for."
  }
  assert {
    condition     = output.urls == { parent = "az://acct/parent" }
    error_message = "Expected the container's URL."
  }
}

run "a_key_and_a_locked_retention_are_set_as_asked" {
  command = plan
  variables {
    customer_managed_key = { key_id = "https://v.vault.azure.net/keys/k", identity_id = "/subscriptions/0/i" }
    retention            = { days = 365, locked = true }
  }
  assert {
    condition     = azurerm_storage_account.this.customer_managed_key[0].key_vault_key_id == "https://v.vault.azure.net/keys/k" && azurerm_storage_account.this.identity[0].identity_ids == tolist(["/subscriptions/0/i"])
    error_message = "Expected the customer's key and the identity that may use it."
  }
  assert {
    condition     = azurerm_storage_container_immutability_policy.this["parent"].immutability_period_in_days == 365 && azurerm_storage_container_immutability_policy.this["parent"].locked
    error_message = "Expected a locked year."
  }
}

run "what_expires_is_bounded_by_prefix_and_age" {
  command = plan
  variables {
    expiring = [for number in range(11) : format("parent/f%02d/checkpoints/", number)]
  }
  assert {
    condition     = flatten([for rule in azurerm_storage_management_policy.this[0].rule : sort(rule.filters[0].prefix_match)]) == [for number in range(11) : format("parent/f%02d/checkpoints/", number)]
    error_message = "Expected nothing to be deleted but what was asked for."
  }
  assert {
    condition     = [for rule in azurerm_storage_management_policy.this[0].rule : length(rule.filters[0].prefix_match)] == [10, 1]
    error_message = "Expected at most ten prefixes in a rule."
  }
  assert {
    condition     = alltrue([for rule in azurerm_storage_management_policy.this[0].rule : rule.enabled && rule.actions[0].base_blob[0].delete_after_days_since_creation_greater_than == 30 && rule.actions[0].version[0].delete_after_days_since_creation == 30])
    error_message = "Expected blobs and versions that are 30 days old."
  }
}

run "a_retention_is_not_locked_unless_it_says_so" {
  command = plan
  variables {
    retention = { days = 1 }
  }
  assert {
    condition     = !azurerm_storage_container_immutability_policy.this["parent"].locked
    error_message = "Expected that what cannot be taken back is never a default."
  }
}

run "an_account_with_a_hyphen_is_refused" {
  command = plan
  variables {
    name = "fed-bucket"
  }
  expect_failures = [var.name]
}

run "a_container_of_two_letters_is_refused" {
  command = plan
  variables {
    containers = ["ab"]
  }
  expect_failures = [var.containers]
}

run "an_unknown_replication_is_refused" {
  command = plan
  variables {
    replication = "RA"
  }
  expect_failures = [var.replication]
}

run "a_key_without_its_identity_is_refused" {
  command = plan
  variables {
    customer_managed_key = { key_id = "https://v.vault.azure.net/keys/k", identity_id = "me" }
  }
  expect_failures = [var.customer_managed_key]
}

run "a_retention_of_half_a_day_is_refused" {
  command = plan
  variables {
    retention = { days = 0.5 }
  }
  expect_failures = [var.retention]
}

run "soft_delete_cannot_be_turned_off" {
  command = plan
  variables {
    soft_delete_days = 0
  }
  expect_failures = [var.soft_delete_days]
}
