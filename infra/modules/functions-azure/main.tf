# One zip, one function app with two functions: on_object, woken by a queue into which Event Grid puts every new blob,
# and on_timer. The app answers nobody; what it needs of its own (locks, queues, its package) is in an account apart.

locals {
  host  = "${var.name}host"
  queue = "objects"
}

data "azurerm_client_config" "this" {}

module "host" {
  source              = "../storage-azure"
  name                = local.host
  resource_group_name = var.resource_group_name
  location            = var.location
  containers          = ["package", "dead-letters"]
  replication         = "LRS" # nothing in it outlives the app
  soft_delete_days    = 7
  tags                = var.tags
}

resource "azurerm_storage_queue" "this" {
  for_each           = toset([local.queue, "${local.queue}-poison"]) # the second is where the runtime puts what failed too often
  name               = each.key
  storage_account_id = module.host.id
}

resource "azurerm_service_plan" "this" {
  # checkov:skip=CKV_AZURE_212: Flex Consumption has as many instances as it needs, and none between rounds
  # checkov:skip=CKV_AZURE_225: a zone that fails delays a round, and the timer goes on with it
  name                = var.name
  resource_group_name = var.resource_group_name
  location            = var.location
  os_type             = "Linux"
  sku_name            = "FC1"
  tags                = var.tags
}

resource "azurerm_function_app_flex_consumption" "this" {
  name                = var.name
  resource_group_name = var.resource_group_name
  location            = var.location
  service_plan_id     = azurerm_service_plan.this.id
  tags                = var.tags

  runtime_name           = "python"
  runtime_version        = "3.13" # from which on what the functions import is kept apart from what the host's worker does
  instance_memory_in_mb  = var.memory_mb
  maximum_instance_count = var.max_instances

  storage_container_type            = "blobContainer"
  storage_container_endpoint        = "https://${local.host}.blob.core.windows.net/package"
  storage_authentication_type       = "UserAssignedIdentity"
  storage_user_assigned_identity_id = var.identity.id

  https_only                                     = true
  webdeploy_publish_basic_authentication_enabled = false

  identity {
    type         = "UserAssigned"
    identity_ids = [var.identity.id]
  }

  site_config {
    minimum_tls_version                    = "1.2"
    scm_minimum_tls_version                = "1.2"
    ip_restriction_default_action          = "Deny" # nothing is to be called; publishing goes by another door, with a token
    application_insights_connection_string = azurerm_application_insights.this.connection_string
  }

  app_settings = merge(var.settings, {
    AZURE_CLIENT_ID                             = var.identity.client_id # which of its identities the SDK takes
    AzureFunctionsJobHost__functionTimeout      = format("%02d:%02d:%02d", floor(var.time_limit_seconds / 3600), floor(var.time_limit_seconds / 60) % 60, var.time_limit_seconds % 60)
    AzureWebJobsStorage                         = "" # or else the provider makes a connection string without a key; see below
    AzureWebJobsStorage__accountName            = local.host
    AzureWebJobsStorage__credential             = "managedidentity"
    AzureWebJobsStorage__clientId               = var.identity.client_id
    APPLICATIONINSIGHTS_AUTHENTICATION_STRING   = "Authorization=AAD;ClientId=${var.identity.client_id}"
    FEDBUCKET_QUEUE                             = local.queue
    FEDBUCKET_QUEUE_CONNECTION__queueServiceUri = "https://${local.host}.queue.core.windows.net/"
    FEDBUCKET_QUEUE_CONNECTION__credential      = "managedidentity"
    FEDBUCKET_QUEUE_CONNECTION__clientId        = var.identity.client_id
    FEDBUCKET_TIMER                             = var.schedule
  })

  # All of the account, for the container of the package is named above and not referred to.
  depends_on = [module.host, azurerm_role_assignment.this, azurerm_role_assignment.take]
}

# Beside AzureWebJobsStorage__… there must be no AzureWebJobsStorage, not even an empty one: the host may take it for its
# connection string, and not start. The provider writes it at every apply, and at every change of the app also
# DEPLOYMENT_STORAGE_CONNECTION_STRING, without a key.
resource "terraform_data" "by_identity" {
  triggers_replace = [azurerm_function_app_flex_consumption.this.id]

  provisioner "local-exec" {
    command = "az functionapp config appsettings delete --subscription \"$SUBSCRIPTION\" --resource-group \"$GROUP\" --name \"$NAME\" --setting-names AzureWebJobsStorage DEPLOYMENT_STORAGE_CONNECTION_STRING --output none"
    environment = {
      SUBSCRIPTION = data.azurerm_client_config.this.subscription_id
      GROUP        = var.resource_group_name
      NAME         = azurerm_function_app_flex_consumption.this.name
    }
  }

  lifecycle {
    replace_triggered_by = [azurerm_function_app_flex_consumption.this]
  }
}

# The provider's own zip_deploy_file logs in with a publishing password, which is turned off above. The Azure CLI
# publishes by the token of whoever applies; a package with another hash is published again.
resource "terraform_data" "published" {
  triggers_replace = [filesha256(var.package), azurerm_function_app_flex_consumption.this.id, var.remote_build]

  provisioner "local-exec" {
    command = "az functionapp deployment source config-zip --subscription \"$SUBSCRIPTION\" --resource-group \"$GROUP\" --name \"$NAME\" --src \"$PACKAGE\" --build-remote \"$BUILD\" --timeout 900"
    environment = {
      SUBSCRIPTION = data.azurerm_client_config.this.subscription_id
      GROUP        = var.resource_group_name
      NAME         = azurerm_function_app_flex_consumption.this.name
      PACKAGE      = abspath(var.package)
      BUILD        = var.remote_build
    }
  }

  depends_on = [terraform_data.by_identity]
}
