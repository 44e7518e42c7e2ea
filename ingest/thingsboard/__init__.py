"""ThingsBoard's MQTT door: a server of MQTT for the topics of its device and gateway API, which name no device."""
