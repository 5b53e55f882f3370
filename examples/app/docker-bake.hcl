# The application of this example. Build it with
#
#   BASE=registry.example/debian cbs realize docker-bake.hcl#app-release --output type=oci,dest=app.tar

variable "BASE" {
  default     = "docker.io/library/debian"
  description = "Repository of a Debian image; the tags `build` (with a C compiler) and `run` are used when they exist"
}

variable "BUILD_TAG" { default = "bookworm" }
variable "RUN_TAG" { default = "bookworm-slim" }

variable "VERSION" {
  default = "0.0.0-dev"
  validation {
    condition     = VERSION != ""
    error_message = "VERSION must not be empty."
  }
}

# tag("app", "1.2.3") = "example/app:1.2.3"
function "tag" {
  params = [name, version]
  result = "example/${name}:${lower(replace(version, "+", "-"))}"
}

group "default" {
  targets = ["app-dev", "app-release"]
}

target "_common" {
  context    = "."
  dockerfile = "Dockerfile"
  args = {
    BUILD_BASE = "${BASE}:${BUILD_TAG}"
    RUN_BASE   = "${BASE}:${RUN_TAG}"
    VERSION    = VERSION
  }
  labels = {
    "org.opencontainers.image.title"   = "cbs example"
    "org.opencontainers.image.version" = VERSION
  }
}

target "app-dev" {
  inherits = ["_common"]
  target   = "runtime"
  args     = { CFLAGS = "-O0 -g" }
  tags     = [tag("app", "dev")]
}

target "app-release" {
  inherits = ["app-dev"]
  args     = { CFLAGS = "-O2 -s" }
  labels   = { "com.example.channel" = "release" }
  tags     = [tag("app", VERSION)]
}
