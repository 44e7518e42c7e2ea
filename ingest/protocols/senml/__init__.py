"""SenML in JSON and CBOR; see README.md."""
