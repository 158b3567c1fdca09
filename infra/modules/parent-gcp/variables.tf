variable "project_id" {
  description = "The parent's own project."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "Expected the id of a project, not its number or name."
  }
}

variable "region" {
  description = "Region of the bucket and the functions."
  type        = string
}

variable "package" {
  description = "Path of `gcp-parent.zip`, as `fedbucket package gcp` wrote it."
  type        = string
}

variable "name" {
  description = "Begins the name of everything here; 3 to 20 letters, digits and hyphens."
  type        = string
  default     = "fedbucket-parent"
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
    condition     = alltrue([for each in var.clients : length(each.federations) >= 1])
    error_message = "A client takes part in one federation at least."
  }
  validation {
    condition     = alltrue([for each in var.clients : (each.gcp == null) != (each.azure == null)])
    error_message = "A client is in one cloud: expected either gcp or azure."
  }
  validation {
    condition     = alltrue([for each in var.clients : each.gcp == null || can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]@[a-z0-9.-]+\\.iam\\.gserviceaccount\\.com$", each.gcp.service_account))])
    error_message = "A GCP client is named by the e-mail of its service account."
  }
  validation {
    condition     = alltrue([for each in var.clients : each.inbox == null || can(regex("^(gs://[^/]+|az://[^/]+/[^/]+)$", each.inbox.bucket))])
    error_message = "An inbox is gs://bucket or az://account/container."
  }
  validation {
    condition     = alltrue([for each in var.clients : each.inbox == null || !startswith(try(each.inbox.bucket, ""), "az://") || (try(each.inbox.tenant, null) != null && try(each.inbox.client, null) != null)])
    error_message = "An inbox in Azure comes with the tenant and the client id of the identity that stands for the parent there: take the client's newest card."
  }
}

variable "kms_key" {
  description = "Cloud KMS key that encrypts the parent bucket; the project's storage service agent must be allowed to use it. null for Google's own keys."
  type        = string
  default     = null
}

variable "retention" {
  description = "For audit: days in which nobody can delete or replace an object of the parent bucket; `locked` cannot be taken back. null for none."
  type        = object({ days = number, locked = optional(bool, false) })
  default     = null
}

variable "soft_delete_days" {
  description = "Days in which what was deleted can be restored."
  type        = number
  default     = 30
}

variable "allow_destroy" {
  description = "Whether `terraform destroy` deletes the parent bucket with all models."
  type        = bool
  default     = false
}

variable "schedule" {
  description = "When the timer makes what is missing: cron, in UTC. A deadline is seen at the next firing."
  type        = string
  default     = "*/10 * * * *"
}

variable "memory_gib" {
  description = "Memory of an instance in GiB; it does not grow with the model."
  type        = number
  default     = 1
}

variable "cpu" {
  description = "vCPUs of an instance, each of which averages a part of the model; null for as few as Cloud Run gives with the memory."
  type        = number
  default     = null
}

variable "time_limit_seconds" {
  description = "Seconds that a call may run."
  type        = number
  default     = 540
}

variable "max_instances" {
  description = "Instances at most; null for two a client, at least 4 and at most 100."
  type        = number
  default     = null
}

variable "alert_emails" {
  description = "Who is told of what a person should hear of."
  type        = set(string)
  default     = []
}

variable "labels" {
  description = "Labels of what can have some."
  type        = map(string)
  default     = {}
}
