"""OwnTracks' locations, on its own topics."""
