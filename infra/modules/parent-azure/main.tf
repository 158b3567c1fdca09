# The parent in Azure: its container, the functions that drive the loop, and every client's rights, one prefix each.

locals {
  container = "parent"
  alerts = {
    rejected = { title = "an update was rejected", action = "A client's update was refused; the code and what was expected stand in the log and in rounds/<round>/receipts/<client>.json." }
    late     = { title = "a round is past its deadline", action = "Too few clients have answered: `fedbucket status` says who. At twice the deadline the round is void, and the run goes on." }
  }
  inboxes_in_gcp = [for each in var.clients : each.inbox if startswith(try(each.inbox.bucket, ""), "gs://")]
}

data "azurerm_client_config" "this" {}

module "contract" {
  source        = "../contract"
  container     = local.container
  staged_blocks = var.staged_blocks
  identities = [for inbox in local.inboxes_in_gcp : {
    trust    = "azure-to-gcp"
    bucket   = inbox.bucket
    provider = inbox.provider
    resource = module.functions.audience
  }]
}

module "storage" {
  source               = "../storage-azure"
  name                 = var.name
  resource_group_name  = var.resource_group_name
  location             = var.location
  containers           = [local.container]
  replication          = var.replication
  customer_managed_key = var.customer_managed_key
  retention            = var.retention
  soft_delete_days     = var.soft_delete_days
  tags                 = var.tags
}

# on_object and on_timer are one app and one identity: the sweep does whatever the handlers do.
resource "azurerm_user_assigned_identity" "this" {
  name                = var.name
  resource_group_name = var.resource_group_name
  location            = var.location
  tags                = var.tags
}

# Built-in roles that create blobs also delete them.
resource "azurerm_role_definition" "create" {
  name              = "fedbucket ${var.name}: create and read"
  scope             = "/subscriptions/${data.azurerm_client_config.this.subscription_id}/resourceGroups/${var.resource_group_name}"
  description       = "Create blobs and read them; neither overwrite nor delete${var.staged_blocks ? ", as far as blobs of up to 64 MiB go" : ""}"
  assignable_scopes = ["/subscriptions/${data.azurerm_client_config.this.subscription_id}/resourceGroups/${var.resource_group_name}"]
  permissions {
    actions      = []
    data_actions = module.contract.actions.create
  }
}

resource "azurerm_role_assignment" "parent" {
  scope              = module.storage.container_ids[local.container]
  role_definition_id = azurerm_role_definition.create.role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.this.principal_id
  principal_type     = "ServicePrincipal"
}

module "functions" {
  source              = "../functions-azure"
  name                = var.name
  resource_group_name = var.resource_group_name
  location            = var.location
  package             = var.package
  identity = {
    id           = azurerm_user_assigned_identity.this.id
    client_id    = azurerm_user_assigned_identity.this.client_id
    principal_id = azurerm_user_assigned_identity.this.principal_id
  }
  asserts_to_google  = length(local.inboxes_in_gcp) > 0
  watch              = merge(module.contract.event_filters.parent, { account_id = module.storage.id })
  schedule           = var.schedule
  memory_mb          = var.memory_mb
  time_limit_seconds = var.time_limit_seconds
  max_instances      = var.max_instances
  alerts             = { for name, each in local.alerts : name => merge(each, { pattern = module.contract.log_patterns[name] }) }
  alert_emails       = var.alert_emails
  tags               = var.tags
  settings = {
    FEDBUCKET_PARENT = <<-EOT
      bucket = ${jsonencode(module.storage.urls[local.container])}
      time_limit = "${var.time_limit_seconds}s"
      workers = 1

      ${module.contract.identities_toml}
    EOT
  }
}
