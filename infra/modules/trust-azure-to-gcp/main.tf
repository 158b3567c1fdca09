# An Azure managed identity asserts itself to Google by the token that its own tenant gives it: no service account key,
# and no service account to impersonate. Rights are bound to the subject itself.

resource "google_iam_workload_identity_pool" "this" {
  project                   = var.project_id
  workload_identity_pool_id = var.pool_id
  display_name              = var.pool_id
  description               = "Entra tenant ${var.tenant}"
}

resource "google_iam_workload_identity_pool_provider" "this" {
  project                            = var.project_id
  workload_identity_pool_id          = google_iam_workload_identity_pool.this.workload_identity_pool_id
  workload_identity_pool_provider_id = "entra"
  attribute_mapping                  = { "google.subject" = "assertion.sub" }
  attribute_condition                = "assertion.sub in [${join(", ", [for each in sort(tolist(var.principals)) : "'${each}'"])}]"
  oidc {
    issuer_uri        = "https://sts.windows.net/${var.tenant}/"
    allowed_audiences = sort(tolist(var.audiences))
  }
}
