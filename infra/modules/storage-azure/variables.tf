variable "name" {
  description = "Name of the storage account, unique in the world."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9]{3,24}$", var.name))
    error_message = "A storage account's name is 3 to 24 lower-case letters and digits."
  }
}

variable "resource_group_name" {
  description = "The resource group that holds it."
  type        = string
}

variable "location" {
  description = "Azure region."
  type        = string
}

variable "containers" {
  description = "Names of its containers; all private."
  type        = set(string)
  validation {
    condition     = alltrue([for each in var.containers : can(regex("^[a-z0-9](-?[a-z0-9]){2,62}$", each))])
    error_message = "A container's name is 3 to 63 lower-case letters, digits and single inner hyphens."
  }
}

variable "replication" {
  description = "Replication: LRS, ZRS, GRS or GZRS."
  type        = string
  default     = "ZRS"
  validation {
    condition     = contains(["LRS", "ZRS", "GRS", "GZRS"], var.replication)
    error_message = "Replication is LRS, ZRS, GRS or GZRS."
  }
}

variable "customer_managed_key" {
  description = "Key Vault key that encrypts the objects, and the user-assigned identity that may use it; null for Microsoft's own keys."
  type        = object({ key_id = string, identity_id = string })
  default     = null
  validation {
    condition     = var.customer_managed_key == null || try(startswith(var.customer_managed_key.key_id, "https://") && startswith(var.customer_managed_key.identity_id, "/subscriptions/"), false)
    error_message = "Expected a key's https:// id and an identity's /subscriptions/… id."
  }
}

variable "retention" {
  description = "For audit: days in which nobody, the owner included, can delete or replace a blob. Once `locked`, that cannot be taken back or shortened, and the account cannot be deleted before. null for none."
  type = object({
    days   = number
    locked = optional(bool, false)
  })
  default = null
  validation {
    condition     = var.retention == null || try(var.retention.days >= 1 && var.retention.days <= 146000 && floor(var.retention.days) == var.retention.days, false)
    error_message = "Retention is whole days, 1 to 146,000."
  }
}

variable "soft_delete_days" {
  description = "Days in which what was deleted can be restored."
  type        = number
  default     = 30
  validation {
    condition     = var.soft_delete_days >= 7 && var.soft_delete_days <= 365 && floor(var.soft_delete_days) == var.soft_delete_days
    error_message = "Soft delete takes 7 to 365 whole days."
  }
}

variable "expiring" {
  description = "Prefixes, CONTAINER/…, of objects that nobody needs once they are 30 days old: they are deleted then, and can be restored for `soft_delete_days` more."
  type        = set(string)
  default     = []
}

variable "tags" {
  description = "Tags of the account."
  type        = map(string)
  default     = {}
}
