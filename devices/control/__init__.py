"""What twins and commands share: the devices' own door, waiting for news, the connection to the broker."""
