output "id" {
  description = "Resource id of the account."
  value       = azurerm_storage_account.this.id
}

output "name" {
  description = "Name of the account."
  value       = azurerm_storage_account.this.name
}

output "container_ids" {
  description = "Resource id of each container, by its name."
  value       = { for name, each in azurerm_storage_container.this : name => each.id }
}

output "urls" {
  description = "Each container as fedbucket's settings name it."
  value       = { for name in var.containers : name => "az://${azurerm_storage_account.this.name}/${name}" }
}
