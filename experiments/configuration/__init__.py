"""From a configuration to settings, data, networks and observations."""
