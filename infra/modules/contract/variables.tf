variable "federations" {
  description = "Names of the federations."
  type        = set(string)
  default     = []
  validation {
    condition     = alltrue([for name in var.federations : can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", name)) && name != "ledger"])
    error_message = "A federation's name is 1 to 63 lower-case letters, digits and inner hyphens, and not \"ledger\"."
  }
}

variable "client" {
  description = "The client's id on the roster; null where no client's own prefix is needed."
  type        = string
  default     = null
  validation {
    condition     = var.client == null || can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.client))
    error_message = "A client's id is 1 to 63 lower-case letters, digits and inner hyphens."
  }
}

variable "bucket" {
  description = "Name of the GCS bucket that IAM conditions are written for; null for none."
  type        = string
  default     = null
}

variable "container" {
  description = "Name of the Azure container that ABAC conditions and event filters are written for; null for none."
  type        = string
  default     = null
}

variable "staged_blocks" {
  description = "Whether ABAC conditions bound `blobs/write`, too, which blobs above 64 MiB need."
  type        = bool
  default     = false
}

variable "identities" {
  description = "Buckets in the other cloud, each with the trust by which the functions get in: the `[[identity]]` tables of their settings."
  type = list(object({
    trust    = string
    bucket   = string
    tenant   = optional(string)
    client   = optional(string)
    provider = optional(string)
    resource = optional(string)
  }))
  default = []
  validation {
    condition = alltrue([for each in var.identities :
      each.trust == "gcp-to-azure" ? each.tenant != null && each.client != null && startswith(each.bucket, "az://") :
      each.trust == "azure-to-gcp" ? each.provider != null && each.resource != null && startswith(each.bucket, "gs://") : false
    ])
    error_message = "An identity is \"gcp-to-azure\" with an az:// bucket, tenant and client, or \"azure-to-gcp\" with a gs:// bucket, provider and resource."
  }
}
