"""The load simulator: an outsider that speaks to Headwater only over its public doors."""
