# What a parent may do here: create and read under inbox/, of its own federations. In private state and data it has no
# assignment at all.

module "trust" {
  source              = "../trust-gcp-to-azure"
  for_each            = { for name, each in var.parents : name => each.gcp.unique_id if each.gcp != null && var.inbox }
  name                = "${var.name}-${each.key}"
  resource_group_name = var.resource_group_name
  location            = var.location
  unique_id           = each.value
  tags                = var.tags
}

module "parent_contract" {
  source      = "../contract"
  for_each    = var.parents
  federations = each.value.federations
  container   = "inbox"
  # Tickets are small: the condition covers what the role may allow for the client's own state.
  staged_blocks = var.staged_blocks
}

resource "azurerm_role_assignment" "parent" {
  for_each           = { for name, each in var.parents : name => each if var.inbox }
  scope              = module.storage.container_ids["inbox"]
  role_definition_id = azurerm_role_definition.create.role_definition_resource_id
  principal_id       = each.value.gcp != null ? module.trust[each.key].principal_id : each.value.azure.principal
  principal_type     = "ServicePrincipal"
  condition_version  = "2.0"
  condition          = module.parent_contract[each.key].abac_conditions.inbox

  lifecycle {
    precondition {
      condition     = each.value.azure == null || try(each.value.azure.tenant, "") == data.azurerm_client_config.this.tenant_id
      error_message = "The parent ${each.key} is in another Entra tenant: Azure gives rights to managed identities of its own tenant only. Leave out the inbox, or take part with a parent in GCP."
    }
  }
}
