# A Google service account asserts itself to Azure by an ID token: no client secret. It acts as an identity that the
# organisation here owns, and can take away.

resource "azurerm_user_assigned_identity" "this" {
  name                = var.name
  resource_group_name = var.resource_group_name
  location            = var.location
  tags                = var.tags
}

resource "azurerm_federated_identity_credential" "this" {
  name                = "google"
  resource_group_name = var.resource_group_name
  parent_id           = azurerm_user_assigned_identity.this.id
  issuer              = "https://accounts.google.com"
  subject             = var.unique_id
  audience            = ["api://AzureADTokenExchange"]
}
