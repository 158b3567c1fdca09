# What the functions and the events may do, all of it in the app's own account and its log: none of it a right to data.

locals {
  queue_ids = { for name, each in azurerm_storage_queue.this : name => each.id }
  rights = {
    # The runtime keeps locks and timers in containers that it names itself; in this account there is nothing else.
    host    = { role = "Storage Blob Data Owner", scope = module.host.id }
    measure = { role = "Storage Queue Data Reader", scope = local.queue_ids[local.queue] }
    poison  = { role = "Storage Queue Data Message Sender", scope = local.queue_ids["${local.queue}-poison"] }
    log     = { role = "Monitoring Metrics Publisher", scope = azurerm_application_insights.this.id }
  }
  event_rights = var.watch == null ? {} : {
    deliver = { role = "Storage Queue Data Message Sender", scope = local.queue_ids[local.queue] }
    bury    = { role = "Storage Blob Data Contributor", scope = module.host.container_ids["dead-letters"] }
  }
  group    = "/subscriptions/${data.azurerm_client_config.this.subscription_id}/resourceGroups/${var.resource_group_name}"
  audience = "api://${data.azurerm_client_config.this.tenant_id}/${var.name}"
}

resource "azurerm_role_assignment" "this" {
  for_each             = local.rights
  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = var.identity.principal_id
  principal_type       = "ServicePrincipal"
}

# The runtime keeps a message hidden while a function runs and gives it back when one fails. Both update the message,
# which the built-in role of a message processor does not allow.
resource "azurerm_role_definition" "take" {
  name              = "fedbucket ${var.name}: take messages"
  scope             = local.group
  description       = "Get, update and delete the messages of a queue"
  assignable_scopes = [local.group]
  permissions {
    actions = []
    data_actions = [for action in ["read", "process/action", "write"] :
      "Microsoft.Storage/storageAccounts/queueServices/queues/messages/${action}"
    ]
  }
}

resource "azurerm_role_assignment" "take" {
  scope              = local.queue_ids[local.queue]
  role_definition_id = azurerm_role_definition.take.role_definition_resource_id
  principal_id       = var.identity.principal_id
  principal_type     = "ServicePrincipal"
}

resource "azurerm_role_assignment" "events" {
  for_each             = local.event_rights
  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = azurerm_eventgrid_system_topic.this[0].identity[0].principal_id
  principal_type       = "ServicePrincipal"
}

# A managed identity gets tokens only for an application of its tenant; this one is nothing but their audience. Version 1
# tokens have the issuer https://sts.windows.net/<tenant>/, which the trust in Google Cloud names.
resource "azuread_application" "google" {
  count            = var.asserts_to_google ? 1 : 0
  display_name     = "${var.name}: tokens for Google Cloud"
  identifier_uris  = [local.audience]
  sign_in_audience = "AzureADMyOrg"
  api {
    requested_access_token_version = 1
  }
}

resource "azuread_service_principal" "google" {
  count     = var.asserts_to_google ? 1 : 0
  client_id = azuread_application.google[0].client_id
}
