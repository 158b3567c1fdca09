output "name" {
  description = "Name of the function app."
  value       = azurerm_function_app_flex_consumption.this.name
}

output "audience" {
  description = "What the identity asks its tokens for Google Cloud for: the `resource` of an `[[identity]]` table."
  value       = local.audience
}

output "settings" {
  description = "App settings of the functions."
  value       = azurerm_function_app_flex_consumption.this.app_settings
}

output "watched" {
  description = "What wakes `on_object`, as it was given; null for nothing."
  value       = var.watch
}

output "remote_build" {
  description = "Whether Azure installs what the package's `requirements.txt` names."
  value       = var.remote_build
}

output "alerts" {
  description = "Regular expressions of what is alerted on, by name."
  value       = { for name, each in var.alerts : name => each.pattern }
}
