output "name" {
  description = "Name of the bucket."
  value       = google_storage_bucket.this.name
}

output "url" {
  description = "The bucket as fedbucket's settings name it."
  value       = "gs://${google_storage_bucket.this.name}"
}
