output "cards" {
  description = "What each parent needs to know of this client, beside its federations, by the parent's name here. Public identifiers only."
  value = { for name, each in var.parents : name => {
    gcp = null
    azure = {
      tenant    = data.azurerm_client_config.this.tenant_id
      principal = azurerm_user_assigned_identity.this.principal_id
      audience  = module.functions.audience
    }
    inbox = !var.inbox ? null : {
      bucket   = module.storage.urls["inbox"]
      tenant   = each.gcp == null ? null : module.trust[name].tenant
      client   = each.gcp == null ? null : module.trust[name].client
      provider = null
    }
  } }
}

output "state" {
  description = "URL of the private state."
  value       = module.storage.urls["state"]
}

output "settings" {
  description = "The text of `client.toml` that the functions have; `fedbucket privacy open` takes it too."
  value       = module.functions.settings.FEDBUCKET_CLIENT
}

output "function_app" {
  description = "Name of the function app."
  value       = module.functions.name
}
