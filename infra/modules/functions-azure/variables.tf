variable "name" {
  description = "Name of the function app, unique in the world; begins the name of everything here."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9]{3,19}$", var.name))
    error_message = "A name is 4 to 20 lower-case letters and digits, and begins with a letter."
  }
}

variable "resource_group_name" {
  description = "The resource group that holds it all."
  type        = string
}

variable "location" {
  description = "Azure region, one that has Flex Consumption."
  type        = string
}

variable "package" {
  description = "Path of the zip that `fedbucket package azure` wrote."
  type        = string
  validation {
    condition     = fileexists(var.package)
    error_message = "No such file: run `fedbucket package azure --out dist/` first."
  }
}

variable "remote_build" {
  description = "Whether Azure installs what the package's `requirements.txt` names, for which it has a minute; false for a package that brings that along, in `.python_packages`."
  type        = bool
  default     = true
}

variable "settings" {
  description = "App settings of the functions, beside those that are set here."
  type        = map(string)
}

variable "identity" {
  description = "The user-assigned identity that the functions run as."
  type        = object({ id = string, client_id = string, principal_id = string })
}

variable "asserts_to_google" {
  description = "Whether the identity is to be believed in Google Cloud; makes the application whose audience its tokens then have."
  type        = bool
  default     = false
}

variable "watch" {
  description = "The storage account whose new blobs wake `on_object`, and the filters on their subjects; null for a timer only."
  type = object({
    account_id  = string
    begins_with = string
    ends_with   = string
    contains    = list(string)
  })
  default = null
}

variable "schedule" {
  description = "When the timer calls `on_timer`: NCRONTAB, six fields, in UTC."
  type        = string
  default     = "0 */10 * * * *"
  validation {
    condition     = length(split(" ", var.schedule)) == 6
    error_message = "A schedule is NCRONTAB with six fields, seconds first."
  }
}

variable "memory_mb" {
  description = "Memory of an instance in MB."
  type        = number
  validation {
    condition     = contains([512, 2048, 4096], var.memory_mb)
    error_message = "Flex Consumption has instances of 512, 2048 or 4096 MB."
  }
}

variable "time_limit_seconds" {
  description = "Seconds that a call may run."
  type        = number
  default     = 1800
  validation {
    condition     = var.time_limit_seconds >= 60 && var.time_limit_seconds <= 14400 && floor(var.time_limit_seconds) == var.time_limit_seconds
    error_message = "The time limit is 60 seconds to 4 hours, in whole seconds."
  }
}

variable "max_instances" {
  description = "Instances at most."
  type        = number
  default     = 40
  validation {
    condition     = var.max_instances >= 40 && var.max_instances <= 1000
    error_message = "Flex Consumption takes a limit of 40 to 1,000 instances."
  }
}

variable "alerts" {
  description = "What the log may say that somebody should hear of: a regular expression (RE2), a title, and what to do."
  type        = map(object({ pattern = string, title = string, action = string }))
  default     = {}
}

variable "alert_emails" {
  description = "Who is told."
  type        = set(string)
  default     = []
  validation {
    condition     = alltrue([for each in var.alert_emails : can(regex("^[^@ ]+@[^@ ]+$", each))])
    error_message = "Expected e-mail addresses."
  }
}

variable "tags" {
  description = "Tags of what can have some."
  type        = map(string)
  default     = {}
}
