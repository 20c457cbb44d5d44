"""How a command starts and ends: flags, several processes, compiled programs that are kept."""
