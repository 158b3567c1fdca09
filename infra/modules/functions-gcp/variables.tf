variable "project_id" {
  description = "The project."
  type        = string
}

variable "region" {
  description = "Region of the functions."
  type        = string
}

variable "name" {
  description = "Begins the name of everything here."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "A name is 3 to 20 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "package" {
  description = "Path of the zip that `fedbucket package gcp` wrote."
  type        = string
  validation {
    condition     = fileexists(var.package)
    error_message = "No such file: run `fedbucket package gcp --out dist/` first."
  }
}

variable "environment" {
  description = "Environment variables of the functions."
  type        = map(string)
}

variable "build_environment" {
  description = "Environment variables of the build, such as pip's own."
  type        = map(string)
  default     = {}
}

variable "service_account" {
  description = "E-mail of the identity that the functions run as."
  type        = string
}

variable "trigger" {
  description = "The bucket whose new objects wake `on_object`, and its location; null for a timer only."
  type        = object({ bucket = string, location = string })
  default     = null
}

variable "schedule" {
  description = "When the timer calls `on_timer`: cron, in UTC."
  type        = string
  default     = "*/10 * * * *"
  validation {
    condition     = length(split(" ", var.schedule)) == 5
    error_message = "A schedule is cron with five fields."
  }
}

variable "memory_gib" {
  description = "Memory of an instance in GiB."
  type        = number
  validation {
    condition     = contains([1, 2, 4, 8, 16, 32], var.memory_gib)
    error_message = "Memory is 1, 2, 4, 8, 16 or 32 GiB."
  }
}

variable "cpu" {
  description = "vCPUs of an instance; null for as few as Cloud Run gives with the memory."
  type        = number
  default     = null
  validation {
    condition     = var.cpu == null || try(contains([1, 2, 4, 8], var.cpu), false)
    error_message = "An instance has 1, 2, 4 or 8 vCPUs."
  }
  validation {
    condition     = var.cpu == null || try(var.memory_gib <= 4 * var.cpu && (var.cpu <= 2 || var.memory_gib >= var.cpu / 2), false)
    error_message = "Cloud Run gives a vCPU 4 GiB at most; 4 vCPUs need 2 GiB, 8 need 4."
  }
}

variable "time_limit_seconds" {
  description = "Seconds that a call may run."
  type        = number
  default     = 540
  validation {
    condition     = var.time_limit_seconds >= 60 && var.time_limit_seconds <= 540
    error_message = "The time limit is 60 to 540 seconds: a function that an event wakes may run for no longer."
  }
}

variable "max_instances" {
  description = "Instances of `on_object` at most; the timer has one."
  type        = number
  validation {
    condition     = var.max_instances >= 1 && var.max_instances <= 1000
    error_message = "Expected 1 to 1,000 instances."
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

variable "labels" {
  description = "Labels of what can have some."
  type        = map(string)
  default     = {}
}
