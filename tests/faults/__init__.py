"""What users see when processes die, stall or lose Redis."""
