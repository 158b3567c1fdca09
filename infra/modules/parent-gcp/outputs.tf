locals {
  card = {
    bucket = module.bucket.url
    gcp    = { service_account = google_service_account.this.email, unique_id = google_service_account.this.unique_id }
    azure  = null
  }
}

output "bucket" {
  description = "URL of the parent bucket: what `fedbucket start`, `status` and `verify` take."
  value       = module.bucket.url
}

output "card" {
  description = "What a client needs to know of the parent before the parent knows the client. Public identifiers only."
  value       = merge(local.card, { access = null })
}

output "cards" {
  description = "What each client needs to know of the parent, by the client's id: `card`, and by what trust its functions get in. Public identifiers only."
  value = { for id, each in var.clients : id => merge(local.card, {
    access = each.azure == null ? null : { tenant = null, client = null, provider = module.trust[each.azure.tenant].provider }
  }) }
}

output "settings" {
  description = "The text of `parent.toml` that the functions have."
  value       = module.functions.environment.FEDBUCKET_PARENT
}

output "functions" {
  description = "Names of the functions, by entry point."
  value       = module.functions.functions
}
