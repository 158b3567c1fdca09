output "provider" {
  description = "Full name of the provider: the `provider` of an `[[identity]]` table."
  value       = "//iam.googleapis.com/${google_iam_workload_identity_pool_provider.this.name}"
}

output "members" {
  description = "The IAM member of each principal, by its object id."
  value = { for each in var.principals : each =>
    "principal://iam.googleapis.com/${google_iam_workload_identity_pool.this.name}/subject/${each}"
  }
}
