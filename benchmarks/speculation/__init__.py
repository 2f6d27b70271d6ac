"""What speculation gains, by how often guesses are right."""
