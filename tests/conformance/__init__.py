"""Every executor against the float64 reference."""
