"""Values of collectd, on the topics of its MQTT plugin."""
