"""From any file to an upright, flat and judged page."""
