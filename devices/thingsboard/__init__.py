"""ThingsBoard's device API for attributes and RPC: twins and commands in the words of its clients."""
