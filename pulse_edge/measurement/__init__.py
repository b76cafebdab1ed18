"""From a flat page to a 12-lead signal, its beats, its waves, measurements, and a check of words
against them."""
