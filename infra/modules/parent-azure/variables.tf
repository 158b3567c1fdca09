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
  description = "Path of `azure-parent.zip`, as `fedbucket package azure` wrote it."
  type        = string
}

variable "clients" {
  description = "The clients, by their id on the roster: the card that each of them sent (`gcp` or `azure`, and `inbox` if it has one), and the federations that it takes part in. Public identifiers only."
  type = map(object({
    federations = set(string)
    gcp         = optional(object({ service_account = string, unique_id = string }))
    azure       = optional(object({ tenant = string, principal = string, audience = string }))
    inbox = optional(object({
      bucket   = string
      tenant   = optional(string)
      client   = optional(string)
      provider = optional(string)
    }))
  }))
  default = {}
  validation {
    condition     = alltrue([for each in var.clients : length(each.federations) >= 1 && length(each.federations) <= 5])
    error_message = "A client takes part in 1 to 5 federations: Azure takes conditions of up to 8 KB, and one covers them all."
  }
  validation {
    condition     = alltrue([for each in var.clients : (each.gcp == null) != (each.azure == null)])
    error_message = "A client is in one cloud: expected either gcp or azure."
  }
  validation {
    condition     = alltrue([for each in var.clients : each.azure == null || can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", each.azure.principal))])
    error_message = "A client in Azure is named by the object id of its managed identity."
  }
  validation {
    condition     = alltrue([for each in var.clients : each.inbox == null || can(regex("^(gs://[^/]+|az://[^/]+/[^/]+)$", each.inbox.bucket))])
    error_message = "An inbox is gs://bucket or az://account/container."
  }
  validation {
    condition     = alltrue([for each in var.clients : each.inbox == null || !startswith(try(each.inbox.bucket, ""), "gs://") || try(each.inbox.provider, null) != null])
    error_message = "An inbox in GCP comes with the provider by which the parent gets in there: take the client's newest card."
  }
}

variable "staged_blocks" {
  description = "Whether objects above 64 MiB can be written to the parent bucket, by the clients and by the parent itself. Azure takes these in blocks, which need `blobs/write`, and no condition can tell a new blob from one that is replaced: fedbucket never replaces one, readers pin versions, versioning keeps what was there, and `retention` refuses it; the right itself does not."
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
  description = "When the timer makes what is missing: NCRONTAB, six fields, in UTC. A deadline is seen at the next firing."
  type        = string
  default     = "0 */10 * * * *"
}

variable "memory_mb" {
  description = "Memory of an instance in MB: 512, 2048 or 4096; it does not grow with the model."
  type        = number
  default     = 2048
}

variable "time_limit_seconds" {
  description = "Seconds that a call may run."
  type        = number
  default     = 600
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
