variable "project_id" {
  description = "The organisation's own project."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "Expected the id of a project, not its number or name."
  }
}

variable "region" {
  description = "Region of the buckets and the functions."
  type        = string
}

variable "package" {
  description = "Path of `gcp-client.zip`, as `fedbucket package gcp` wrote it, with the organisation's task in it."
  type        = string
}

variable "torch_index" {
  description = "Index of PyTorch's builds for CPUs, for the functions' build: PyPI's torch for Linux brings CUDA, some GB."
  type        = string
  default     = null
}

variable "name" {
  description = "Begins the name of everything here; 3 to 20 letters, digits and hyphens."
  type        = string
  default     = "fedbucket-client"
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
    condition     = alltrue([for each in var.parents : length(each.federations) >= 1])
    error_message = "Name at least one federation of each parent."
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
    condition     = alltrue([for each in var.parents : each.gcp == null || can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]@[a-z0-9.-]+\\.iam\\.gserviceaccount\\.com$", each.gcp.service_account))])
    error_message = "A parent in GCP is named by the e-mail of its service account."
  }
}

variable "inbox" {
  description = "Whether there is a bucket for tickets, in which the parent may create and read under inbox/. Without it the parent has no right here at all, and the timer looks for new models."
  type        = bool
  default     = true
}

variable "data_bucket" {
  description = "Name of the existing bucket that holds the private data, for the functions to read; null where the task reads it from elsewhere."
  type        = string
  default     = null
}

variable "kms_key" {
  description = "Cloud KMS key that encrypts inbox and private state; the project's storage service agent must be allowed to use it. null for Google's own keys."
  type        = string
  default     = null
}

variable "retention" {
  description = "For audit: days in which nobody can delete or replace an object of the private state (ledger, releases); `locked` cannot be taken back. null for none."
  type        = object({ days = number, locked = optional(bool, false) })
  default     = null
}

variable "soft_delete_days" {
  description = "Days in which what was deleted can be restored."
  type        = number
  default     = 30
}

variable "allow_destroy" {
  description = "Whether `terraform destroy` deletes the private state, the privacy account in it. An account that is lost cannot be begun anew."
  type        = bool
  default     = false
}

variable "schedule" {
  description = "When the timer makes what is missing: cron, in UTC."
  type        = string
  default     = "*/10 * * * *"
}

variable "memory_gib" {
  description = "Memory of an instance in GiB: it holds the model and the training."
  type        = number
  default     = 4
}

variable "cpu" {
  description = "vCPUs of an instance; null for as few as Cloud Run gives with the memory."
  type        = number
  default     = null
}

variable "time_limit_seconds" {
  description = "Seconds that a call may run: the training of one round."
  type        = number
  default     = 540
}

variable "max_instances" {
  description = "Instances at most; null for one a federation and one more."
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
