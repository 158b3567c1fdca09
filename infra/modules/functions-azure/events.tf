# New blobs → Event Grid → queue. What cannot be delivered for a day goes to a container of its own.

resource "azurerm_eventgrid_system_topic" "this" {
  count               = var.watch == null ? 0 : 1
  name                = var.name
  resource_group_name = var.resource_group_name
  location            = var.location
  source_resource_id  = var.watch.account_id
  topic_type          = "Microsoft.Storage.StorageAccounts"
  tags                = var.tags
  identity {
    type = "SystemAssigned"
  }
}

resource "azurerm_eventgrid_system_topic_event_subscription" "this" {
  count                 = var.watch == null ? 0 : 1
  name                  = local.queue
  resource_group_name   = var.resource_group_name
  system_topic          = azurerm_eventgrid_system_topic.this[0].name
  event_delivery_schema = "EventGridSchema"
  included_event_types  = ["Microsoft.Storage.BlobCreated"]

  subject_filter {
    subject_begins_with = var.watch.begins_with
    subject_ends_with   = var.watch.ends_with
    case_sensitive      = true
  }
  advanced_filter {
    string_contains {
      key    = "subject"
      values = var.watch.contains
    }
  }
  storage_queue_endpoint {
    storage_account_id                    = module.host.id
    queue_name                            = azurerm_storage_queue.this[local.queue].name
    queue_message_time_to_live_in_seconds = 604800 # a week: longer than a person takes to mend a handler
  }
  delivery_identity {
    type = "SystemAssigned"
  }
  retry_policy {
    max_delivery_attempts = 30
    event_time_to_live    = 1440
  }
  storage_blob_dead_letter_destination {
    storage_account_id          = module.host.id
    storage_blob_container_name = "dead-letters"
  }
  dead_letter_identity {
    type = "SystemAssigned"
  }

  depends_on = [azurerm_role_assignment.events]
}
