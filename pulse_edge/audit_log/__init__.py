"""The audit log: a hash-chained trail of answers and confirmations that shows any change."""
