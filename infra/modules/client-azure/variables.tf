variable "name" {
  description = "Name of the storage account and of the function app, unique in the world; begins the name of everything here."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9]{3,19}$", var.name))
    error_message = "A name is 4 to 20 lower-case letters and digits, and begins with a letter."
  }
}

variable "resource_group_name" {
  description = "An existing resource group, which holds everything here."
  type        = string
}

variable "location" {
  description = "Azure region, one that has Flex Consumption."
  type        = string
}

variable "package" {
  description = "Path of `azure-client.zip`, as `fedbucket package azure` wrote it, with the organisation's task in it, and with the libraries added that its `requirements.txt` names."
  type        = string
}

variable "client_toml" {
  description = "The text of `client.toml`: `file(\"client.toml\")`. Without `state`, `inbox`, `time_limit` and `[[identity]]`, which are set here."
  type        = string
  validation {
    condition     = can(regex("(?m)^id\\s*=\\s*\"[a-z0-9-]+\"", var.client_toml))
    error_message = "Expected the text of a client.toml, with its id."
  }
  validation {
    condition     = !can(regex("(?m)^\\s*(state|inbox|time_limit)\\s*=", var.client_toml)) && !can(regex("(?m)^\\s*\\[\\[\\s*identity", var.client_toml))
    error_message = "Leave out state, inbox, time_limit and [[identity]]: this module makes them."
  }
}

variable "parents" {
  description = "The parents, by a name of your choice: the card that each of them sent (`bucket`, `gcp` or `azure`, and `access`), and its federations that this client takes part in. Public identifiers only."
  type = map(object({
    federations = set(string)
    bucket      = string
    gcp         = optional(object({ service_account = string, unique_id = string }))
    azure       = optional(object({ tenant = string, principal = string, audience = string }))
    access = optional(object({
      tenant   = optional(string)
      client   = optional(string)
      provider = optional(string)
    }))
  }))
  default = {}
  validation {
    condition     = alltrue([for each in var.parents : length(each.federations) >= 1 && length(each.federations) <= 5])
    error_message = "Name 1 to 5 federations of each parent: Azure takes conditions of up to 8 KB, and one covers them all."
  }
  validation {
    condition     = length(flatten([for each in var.parents : tolist(each.federations)])) == length(distinct(flatten([for each in var.parents : tolist(each.federations)])))
    error_message = "A federation has one parent."
  }
  validation {
    condition     = alltrue([for each in var.parents : (each.gcp == null) != (each.azure == null)])
    error_message = "A parent is in one cloud: expected either gcp or azure."
  }
  validation {
    condition     = alltrue([for each in var.parents : each.gcp == null ? can(regex("^az://[^/]+/[^/]+$", each.bucket)) : can(regex("^gs://[^/]+$", each.bucket))])
    error_message = "The parent bucket is gs://bucket for a parent in gcp, az://account/container for one in azure."
  }
  validation {
    condition     = alltrue([for each in var.parents : each.azure == null || can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", each.azure.principal))])
    error_message = "A parent in Azure is named by the object id of its managed identity."
  }
}

variable "inbox" {
  description = "Whether there is a container for tickets, in which the parent may create and read under inbox/. Without it the parent has no right here at all, and the timer looks for new models."
  type        = bool
  default     = true
}

variable "data_container_id" {
  description = "Resource id of the existing container that holds the private data, for the functions to read; null where the task reads it from elsewhere."
  type        = string
  default     = null
  validation {
    condition     = var.data_container_id == null || can(regex("^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft.Storage/storageAccounts/[^/]+/blobServices/default/containers/[^/]+$", var.data_container_id))
    error_message = "Expected the resource id of a container, …/blobServices/default/containers/name: no right is given on a whole account."
  }
}

variable "staged_blocks" {
  description = "Whether objects above 64 MiB can be written to the private state. Azure takes these in blocks, which need `blobs/write`, and no condition can tell a new blob from one that is replaced: fedbucket never replaces one, readers pin versions, versioning keeps what was there, and `retention` refuses it; the right itself does not."
  type        = bool
  default     = false
}

variable "replication" {
  description = "Replication of the storage account: LRS, ZRS, GRS or GZRS."
  type        = string
  default     = "ZRS"
}

variable "customer_managed_key" {
  description = "Key Vault key that encrypts the objects, and the user-assigned identity that may use it; null for Microsoft's own keys."
  type        = object({ key_id = string, identity_id = string })
  default     = null
}

variable "retention" {
  description = "For audit: days in which nobody can delete or replace an object; `locked` cannot be taken back. null for none."
  type        = object({ days = number, locked = optional(bool, false) })
  default     = null
}

variable "soft_delete_days" {
  description = "Days in which what was deleted can be restored."
  type        = number
  default     = 30
}

variable "schedule" {
  description = "When the timer makes what is missing: NCRONTAB, six fields, in UTC."
  type        = string
  default     = "0 */10 * * * *"
}

variable "memory_mb" {
  description = "Memory of an instance in MB: 512, 2048 or 4096; it holds the model and the training."
  type        = number
  default     = 4096
}

variable "time_limit_seconds" {
  description = "Seconds that a call may run: the training of one round."
  type        = number
  default     = 1800
}

variable "max_instances" {
  description = "Instances at most; Flex Consumption takes no limit below 40."
  type        = number
  default     = 40
}

variable "alert_emails" {
  description = "Who is told of what a person should hear of."
  type        = set(string)
  default     = []
}

variable "tags" {
  description = "Tags of what can have some."
  type        = map(string)
  default     = {}
}
