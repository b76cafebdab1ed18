"""What is tested and measured on a machine: doctor, self-test, benchmark, estimate."""
