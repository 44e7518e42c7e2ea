"""What operators see: queries, the live feed, the web pages. Reads the store; asks the other services over HTTP."""
