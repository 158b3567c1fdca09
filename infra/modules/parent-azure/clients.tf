# What a client may do in the parent container: read and list public/ and updates/<itself>/, create under the latter. One
# assignment a client, on this container, with a condition on everything that it allows.

module "trust" {
  source              = "../trust-gcp-to-azure"
  for_each            = { for id, each in var.clients : id => each.gcp.unique_id if each.gcp != null }
  name                = "${var.name}-${each.key}"
  resource_group_name = var.resource_group_name
  location            = var.location
  unique_id           = each.value
  tags                = var.tags
}

module "client_contract" {
  source        = "../contract"
  for_each      = var.clients
  client        = each.key
  federations   = each.value.federations
  container     = local.container
  staged_blocks = var.staged_blocks
}

resource "azurerm_role_assignment" "client" {
  for_each           = var.clients
  scope              = module.storage.container_ids[local.container]
  role_definition_id = azurerm_role_definition.create.role_definition_resource_id
  principal_id       = each.value.gcp != null ? module.trust[each.key].principal_id : each.value.azure.principal
  principal_type     = "ServicePrincipal"
  condition_version  = "2.0"
  condition          = module.client_contract[each.key].abac_conditions.updates

  lifecycle {
    precondition {
      condition     = each.value.azure == null || try(each.value.azure.tenant, "") == data.azurerm_client_config.this.tenant_id
      error_message = "${each.key} is in another Entra tenant: Azure gives rights to managed identities of its own tenant only. A parent in GCP takes clients of any tenant."
    }
  }
}
