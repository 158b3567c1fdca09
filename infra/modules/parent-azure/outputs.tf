locals {
  card = {
    bucket = module.storage.urls[local.container]
    gcp    = null
    azure = {
      tenant    = data.azurerm_client_config.this.tenant_id
      principal = azurerm_user_assigned_identity.this.principal_id
      audience  = module.functions.audience
    }
  }
}

output "bucket" {
  description = "URL of the parent bucket: what `fedbucket start`, `status` and `verify` take."
  value       = module.storage.urls[local.container]
}

output "card" {
  description = "What a client needs to know of the parent before the parent knows the client. Public identifiers only."
  value       = merge(local.card, { access = null })
}

output "cards" {
  description = "What each client needs to know of the parent, by the client's id: `card`, and by what trust its functions get in. Public identifiers only."
  value = { for id, each in var.clients : id => merge(local.card, {
    access = each.gcp == null ? null : { tenant = module.trust[id].tenant, client = module.trust[id].client, provider = null }
  }) }
}

output "settings" {
  description = "The text of `parent.toml` that the functions have."
  value       = module.functions.settings.FEDBUCKET_PARENT
}

output "function_app" {
  description = "Name of the function app."
  value       = module.functions.name
}
