"""How much the way in carries: a whole server around a backend that answers at once, under load from outside."""
