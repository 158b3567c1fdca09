# An account in which every blob is written once: no keys, nothing public, nothing lost by a deletion.

resource "azurerm_storage_account" "this" {
  # checkov:skip=CKV_AZURE_33: classic logging of queues needs account keys, which there are none of
  # checkov:skip=CKV_AZURE_59: the other cloud's functions reach it over the internet, by tokens; there are no keys
  # checkov:skip=CKV_AZURE_206: ZRS by default, which keeps data in its region, as many organisations must
  # checkov:skip=CKV2_AZURE_1: a customer's key is taken where one is given
  # checkov:skip=CKV2_AZURE_33: the other cloud's functions reach it over the internet, by tokens
  name                             = var.name
  resource_group_name              = var.resource_group_name
  location                         = var.location
  account_kind                     = "StorageV2"
  account_tier                     = "Standard"
  account_replication_type         = var.replication
  shared_access_key_enabled        = false
  default_to_oauth_authentication  = true
  local_user_enabled               = false
  allow_nested_items_to_be_public  = false
  cross_tenant_replication_enabled = false
  https_traffic_only_enabled       = true
  min_tls_version                  = "TLS1_2"
  tags                             = var.tags

  infrastructure_encryption_enabled = true

  sas_policy {
    expiration_period = "00.01:00:00" # without keys there is none to sign but a user's own delegation
  }

  blob_properties {
    versioning_enabled = true
    delete_retention_policy {
      days = var.soft_delete_days
    }
    container_delete_retention_policy {
      days = var.soft_delete_days
    }
  }

  dynamic "identity" {
    for_each = var.customer_managed_key[*]
    content {
      type         = "UserAssigned"
      identity_ids = [identity.value.identity_id]
    }
  }
  dynamic "customer_managed_key" {
    for_each = var.customer_managed_key[*]
    content {
      key_vault_key_id          = customer_managed_key.value.key_id
      user_assigned_identity_id = customer_managed_key.value.identity_id
    }
  }
}

resource "azurerm_storage_container" "this" {
  # checkov:skip=CKV2_AZURE_21: who read blobs is told by diagnostic settings, where the organisation turns them on
  for_each              = var.containers
  name                  = each.key
  storage_account_id    = azurerm_storage_account.this.id
  container_access_type = "private"
}

resource "azurerm_storage_management_policy" "this" {
  count              = length(var.expiring) > 0 ? 1 : 0
  storage_account_id = azurerm_storage_account.this.id
  dynamic "rule" {
    for_each = chunklist(sort(var.expiring), 10) # prefixes in a rule, at most
    content {
      name    = "expiring${rule.key}"
      enabled = true
      filters {
        prefix_match = rule.value
        blob_types   = ["blockBlob"]
      }
      actions {
        base_blob {
          delete_after_days_since_creation_greater_than = 30
        }
        version { # which the first deletion leaves
          delete_after_days_since_creation = 30
        }
      }
    }
  }
}

resource "azurerm_storage_container_immutability_policy" "this" {
  for_each                              = var.retention == null ? toset([]) : var.containers
  storage_container_resource_manager_id = azurerm_storage_container.this[each.key].id
  immutability_period_in_days           = var.retention.days
  locked                                = var.retention.locked
}
