# What a person should hear of: what the log says (var.alerts), a handler that keeps failing, an event that came to nothing.

locals {
  said = "union isfuzzy=true (AppTraces | where AppRoleName == '${var.name}'), (AppExceptions | where AppRoleName == '${var.name}' | extend Message = strcat(OuterMessage, ' ', InnermostMessage))"
  queries = merge(
    { for name, each in var.alerts : name => {
      title = each.title, action = each.action, threshold = 0, window = "PT5M"
      query = "${local.said} | where Message matches regex @'${each.pattern}'"
    } },
    {
      failing = {
        title  = "a handler keeps failing", threshold = 3, window = "PT1H"
        action = "More than three failed calls in an hour: single ones are retried and mean nothing. The error is in AppExceptions."
        query  = "AppRequests | where AppRoleName == '${var.name}' and Success == false"
      }
      poison = {
        title  = "an event was given up", threshold = 0, window = "PT5M"
        action = "It is in the queue ${local.queue}-poison of ${local.host}. Mend what made on_object fail; the timer then makes what is missing."
        query  = "${local.said} | where Message has 'MaxDequeueCount'"
      }
    },
  )
}

resource "azurerm_log_analytics_workspace" "this" {
  name                         = var.name
  resource_group_name          = var.resource_group_name
  location                     = var.location
  sku                          = "PerGB2018"
  retention_in_days            = 90
  local_authentication_enabled = false
  tags                         = var.tags
}

resource "azurerm_application_insights" "this" {
  name                          = var.name
  resource_group_name           = var.resource_group_name
  location                      = var.location
  application_type              = "web"
  workspace_id                  = azurerm_log_analytics_workspace.this.id
  sampling_percentage           = 100 # a rejection must not be left out
  local_authentication_disabled = true
  tags                          = var.tags
}

resource "azurerm_monitor_action_group" "this" {
  name                = var.name
  resource_group_name = var.resource_group_name
  short_name          = "fedbucket"
  tags                = var.tags
  dynamic "email_receiver" {
    for_each = var.alert_emails
    content {
      name                    = email_receiver.key
      email_address           = email_receiver.key
      use_common_alert_schema = true
    }
  }
}

resource "azurerm_monitor_scheduled_query_rules_alert_v2" "this" {
  for_each              = local.queries
  name                  = "${var.name}-${each.key}"
  resource_group_name   = var.resource_group_name
  location              = var.location
  display_name          = "${var.name}: ${each.value.title}"
  description           = each.value.action
  scopes                = [azurerm_log_analytics_workspace.this.id]
  severity              = 2
  evaluation_frequency  = "PT5M"
  window_duration       = each.value.window
  skip_query_validation = true # the tables are not there before the first line of log
  tags                  = var.tags

  criteria {
    query                   = each.value.query
    time_aggregation_method = "Count"
    operator                = "GreaterThan"
    threshold               = each.value.threshold
  }
  action {
    action_groups = [azurerm_monitor_action_group.this.id]
  }
}

resource "azurerm_monitor_metric_alert" "dead_letters" {
  count               = var.watch == null ? 0 : 1
  name                = "${var.name}-dead-letters"
  resource_group_name = var.resource_group_name
  scopes              = [azurerm_eventgrid_system_topic.this[0].id]
  description         = "An event could not be put into the queue ${local.queue} of ${local.host} for a day; it is in the container dead-letters. The timer makes what is missing."
  severity            = 2
  tags                = var.tags

  criteria {
    metric_namespace       = "Microsoft.EventGrid/systemTopics"
    metric_name            = "DeadLetteredCount"
    aggregation            = "Total"
    operator               = "GreaterThan"
    threshold              = 0
    skip_metric_validation = true
  }
  action {
    action_group_id = azurerm_monitor_action_group.this.id
  }
}
