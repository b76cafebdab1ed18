"""The audit log: a hash-chained trail of answers."""
