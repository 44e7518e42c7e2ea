"""How any service of the platform runs. Holds no word of the domain: a service about something else could use it."""
