# A machine as a job of Nomad. NOT RUN in this project's tests: nobody of us has tried it.
# The client needs `plugin "raw_exec" { config { enabled = true } }`, qemu-launcher in its PATH, and
# `max_kill_timeout` of at least the kill_timeout below (its default is 30s).
job "machine" {
  type = "service"

  group "machine" {
    count = 1

    restart {
      attempts = 3
      interval = "10m"
      delay    = "5s"
      mode     = "fail"
    }

    task "qemu" {
      driver = "raw_exec"

      config {
        command = "qemu-launcher"
        args = [
          "run", "local/machine.yaml",
          "--set", "name=${NOMAD_JOB_NAME}-${NOMAD_ALLOC_INDEX}",
        ]
      }

      template {
        destination = "local/machine.yaml"
        data        = <<-PROFILE
          platform: debian-12
          machine: q35
          accel: [kvm, tcg]
          memory: 1GiB
          stop: {powerdown-seconds: 40}
        PROFILE
      }

      # The launcher asks the guest to power down; longer than the profile has it wait, and 15 s.
      kill_signal  = "SIGTERM"
      kill_timeout = "60s"

      resources {
        cpu    = 1000
        memory = 1280
      }
    }
  }
}
