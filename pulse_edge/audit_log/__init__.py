"""The audit log: a hash-chained trail of answers that shows any change, without names and texts."""
