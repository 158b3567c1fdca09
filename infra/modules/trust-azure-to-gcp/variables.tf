variable "project_id" {
  description = "The project that holds the pool: of the organisation that lets the Azure identities in."
  type        = string
}

variable "pool_id" {
  description = "Id of the workload identity pool; one pool a tenant. A deleted pool keeps its id for 30 days."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,30}[a-z0-9]$", var.pool_id)) && !startswith(var.pool_id, "gcp-")
    error_message = "A pool's id is 4 to 32 lower-case letters, digits and hyphens, begins with a letter, and not with gcp-."
  }
}

variable "tenant" {
  description = "The Entra tenant whose identities are let in."
  type        = string
  validation {
    condition     = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.tenant))
    error_message = "A tenant is a UUID in lower case."
  }
}

variable "audiences" {
  description = "What the identities ask their tokens for: `api://…`."
  type        = set(string)
  validation {
    condition     = length(var.audiences) >= 1 && length(var.audiences) <= 10 && alltrue([for each in var.audiences : startswith(each, "api://")])
    error_message = "Expected 1 to 10 audiences (Google's limit), each an api:// URI."
  }
}

variable "principals" {
  description = "Object ids of the managed identities that are let in, and no others of the tenant."
  type        = set(string)
  validation {
    condition     = length(var.principals) >= 1 && alltrue([for each in var.principals : can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", each))])
    error_message = "Expected at least one principal, each a UUID in lower case."
  }
}
