"""The protocol `ruuvi`: sensors of Ruuvi behind its gateway."""
