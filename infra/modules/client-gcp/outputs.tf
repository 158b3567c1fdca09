output "cards" {
  description = "What each parent needs to know of this client, beside its federations, by the parent's name here. Public identifiers only."
  value = { for name, each in var.parents : name => {
    gcp   = { service_account = google_service_account.this.email, unique_id = google_service_account.this.unique_id }
    azure = null
    inbox = !var.inbox ? null : {
      bucket   = module.inbox[0].url
      tenant   = null
      client   = null
      provider = each.azure == null ? null : module.trust[each.azure.tenant].provider
    }
  } }
}

output "state" {
  description = "URL of the private state."
  value       = module.state.url
}

output "settings" {
  description = "The text of `client.toml` that the functions have; `fedbucket privacy open` takes it too."
  value       = module.functions.environment.FEDBUCKET_CLIENT
}

output "functions" {
  description = "Names of the functions, by entry point."
  value       = module.functions.functions
}
