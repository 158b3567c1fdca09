variable "project_id" {
  description = "The project that owns the bucket."
  type        = string
}

variable "name" {
  description = "Name of the bucket, unique in the world."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9_-]{1,61}[a-z0-9]$", var.name))
    error_message = "A bucket's name is 3 to 63 lower-case letters, digits, hyphens and underscores (dots would need a verified domain)."
  }
}

variable "location" {
  description = "Region or multi-region."
  type        = string
}

variable "kms_key" {
  description = "Cloud KMS key that encrypts the objects (the project's storage service agent needs to use it); null for Google's own keys."
  type        = string
  default     = null
  validation {
    condition     = var.kms_key == null || can(regex("^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key))
    error_message = "A key is projects/…/locations/…/keyRings/…/cryptoKeys/…."
  }
}

variable "retention" {
  description = "For audit: days in which nobody, the owner included, can delete or replace an object. Once `locked`, that cannot be taken back or shortened, and the bucket cannot be deleted before. It takes the place of versions. null for none."
  type = object({
    days   = number
    locked = optional(bool, false)
  })
  default = null
  validation {
    condition     = var.retention == null || try(var.retention.days >= 1 && var.retention.days <= 36500 && floor(var.retention.days) == var.retention.days, false)
    error_message = "Retention is whole days, 1 to 36,500."
  }
}

variable "soft_delete_days" {
  description = "Days in which what was deleted can be restored."
  type        = number
  default     = 30
  validation {
    condition     = var.soft_delete_days >= 7 && var.soft_delete_days <= 90 && floor(var.soft_delete_days) == var.soft_delete_days
    error_message = "Soft delete takes 7 to 90 whole days."
  }
}

variable "expiring" {
  description = "Prefixes of objects that nobody needs once they are 30 days old: they are deleted then, and can be restored for `soft_delete_days` more."
  type        = set(string)
  default     = []
}

variable "allow_destroy" {
  description = "Whether `terraform destroy` deletes the bucket with all that is in it."
  type        = bool
  default     = false
}

variable "labels" {
  description = "Labels of the bucket."
  type        = map(string)
  default     = {}
}
