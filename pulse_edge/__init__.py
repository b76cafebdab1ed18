"""pulse-edge: read 12-lead ECG pages with PULSE kits, offline."""
