output "functions" {
  description = "Names of the functions, by entry point."
  value       = { for entry_point, each in google_cloudfunctions2_function.this : entry_point => each.name }
}

output "environment" {
  description = "Environment variables of the functions."
  value       = google_cloudfunctions2_function.this["on_timer"].service_config[0].environment_variables
}

output "build_environment" {
  description = "Environment variables of the build."
  value       = google_cloudfunctions2_function.this["on_timer"].build_config[0].environment_variables
}

output "watched" {
  description = "The bucket whose new objects wake `on_object`; null for none."
  value       = try(one(one(google_cloudfunctions2_function.this["on_object"].event_trigger).event_filters).value, null)
}

output "max_instances" {
  description = "Instances of `on_object` at most; null where there is none."
  value       = try(google_cloudfunctions2_function.this["on_object"].service_config[0].max_instance_count, null)
}

output "cpu" {
  description = "vCPUs of an instance."
  value       = local.cpu
}

output "alerts" {
  description = "Regular expressions of what is alerted on, by name."
  value       = { for name, each in var.alerts : name => each.pattern }
}
