# A client in Azure: private state, where nobody else has a right; if it likes, an inbox; and the functions that train.

locals {
  containers = var.inbox ? ["inbox", "state"] : ["state"]
  alerts = {
    budget   = { title = "a privacy budget is spent", action = "The client withdraws from rounds that its budget cannot bear: `fedbucket privacy ledger` shows the account. Granting more is a decision on the data, not a repair." }
    refused  = { title = "a federation is outside what was agreed", action = "Nothing was created. The log names what differs; agree to it in client.toml, or leave the federation." }
    left_out = { title = "an update was not averaged", action = "The ticket says how the client's last round ended: rejected (with a code), absent, withdrawn or void." }
  }
}

data "azurerm_client_config" "this" {}

module "contract" {
  source        = "../contract"
  federations   = toset(flatten([for each in var.parents : tolist(each.federations)]))
  container     = "inbox"
  staged_blocks = var.staged_blocks
  identities = [for each in var.parents : {
    trust    = "azure-to-gcp"
    bucket   = each.bucket
    provider = each.access.provider
    resource = module.functions.audience
  } if each.gcp != null && each.access != null]
}

module "storage" {
  source               = "../storage-azure"
  name                 = var.name
  resource_group_name  = var.resource_group_name
  location             = var.location
  containers           = local.containers
  replication          = var.replication
  customer_managed_key = var.customer_managed_key
  retention            = var.retention
  expiring             = [for folder in values(module.contract.folders.checkpoints) : "state/${folder}"] # weights without noise
  soft_delete_days     = var.soft_delete_days
  tags                 = var.tags
}

# on_object and on_timer are one app and one identity: the sweep does whatever the handler does.
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

resource "azurerm_role_assignment" "state" {
  scope              = module.storage.container_ids["state"]
  role_definition_id = azurerm_role_definition.create.role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.this.principal_id
  principal_type     = "ServicePrincipal"
}

resource "azurerm_role_assignment" "read" {
  for_each = merge(
    var.inbox ? { inbox = module.storage.container_ids["inbox"] } : {},
    var.data_container_id == null ? {} : { data = var.data_container_id },
  )
  scope                = each.value
  role_definition_name = "Storage Blob Data Reader"
  principal_id         = azurerm_user_assigned_identity.this.principal_id
  principal_type       = "ServicePrincipal"
}

module "functions" {
  source              = "../functions-azure"
  name                = var.name
  resource_group_name = var.resource_group_name
  location            = var.location
  package             = var.package
  remote_build        = false # torch takes longer than Azure gives it
  identity = {
    id           = azurerm_user_assigned_identity.this.id
    client_id    = azurerm_user_assigned_identity.this.client_id
    principal_id = azurerm_user_assigned_identity.this.principal_id
  }
  asserts_to_google  = anytrue([for each in var.parents : each.gcp != null])
  watch              = var.inbox ? merge(module.contract.event_filters.client, { account_id = module.storage.id }) : null
  schedule           = var.schedule
  memory_mb          = var.memory_mb
  time_limit_seconds = var.time_limit_seconds
  max_instances      = var.max_instances
  alerts             = { for name, each in local.alerts : name => merge(each, { pattern = module.contract.log_patterns[name] }) }
  alert_emails       = var.alert_emails
  tags               = var.tags
  settings = {
    FEDBUCKET_CLIENT = join("\n", concat(
      ["state = ${jsonencode(module.storage.urls["state"])}", "time_limit = \"${var.time_limit_seconds}s\""],
      var.inbox ? ["inbox = ${jsonencode(module.storage.urls["inbox"])}"] : [],
      [var.client_toml, module.contract.identities_toml],
    ))
  }
}
