mock_provider "azurerm" {
  override_during = plan
  mock_resource "azurerm_user_assigned_identity" {
    defaults = {
      id           = "/subscriptions/0/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i"
      principal_id = "22222222-2222-4222-8222-222222222222"
      client_id    = "33333333-3333-4333-8333-333333333333"
      tenant_id    = "11111111-1111-4111-8111-111111111111"
    }
  }
}

variables {
  name                = "fedbucket-hospital-a"
  resource_group_name = "fedbucket"
  location            = "westeurope"
  unique_id           = "104321098765432109876"
}

run "the_service_account_is_believed_when_google_says_so" {
  command = plan
  assert {
    condition     = azurerm_federated_identity_credential.this.issuer == "https://accounts.google.com" && azurerm_federated_identity_credential.this.subject == "104321098765432109876"
    error_message = "Expected Google's issuer and the unique id."
  }
  assert {
    condition     = azurerm_federated_identity_credential.this.audience == tolist(["api://AzureADTokenExchange"])
    error_message = "Expected the audience of a token exchange and no other."
  }
  assert {
    condition     = azurerm_federated_identity_credential.this.parent_id == azurerm_user_assigned_identity.this.id
    error_message = "Expected the credential on this identity."
  }
}

run "the_other_side_is_told_whom_to_act_as" {
  command = plan
  assert {
    condition     = output.client == "33333333-3333-4333-8333-333333333333" && output.tenant == "11111111-1111-4111-8111-111111111111" && output.principal_id == "22222222-2222-4222-8222-222222222222"
    error_message = "Expected client, tenant and principal of the identity."
  }
}

run "an_email_address_is_refused" {
  command = plan
  variables {
    unique_id = "parent@project.iam.gserviceaccount.com"
  }
  expect_failures = [var.unique_id]
}
