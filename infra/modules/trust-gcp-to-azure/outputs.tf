output "principal_id" {
  description = "Object id of the identity: what rights are given to."
  value       = azurerm_user_assigned_identity.this.principal_id
}

output "client" {
  description = "Client id of the identity: the `client` of an `[[identity]]` table."
  value       = azurerm_user_assigned_identity.this.client_id
}

output "tenant" {
  description = "Its tenant: the `tenant` of an `[[identity]]` table."
  value       = azurerm_user_assigned_identity.this.tenant_id
}
