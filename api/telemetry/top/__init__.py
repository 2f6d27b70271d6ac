"""`isotoken top`: what /metrics says, live in a terminal."""
