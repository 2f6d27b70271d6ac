"""Which model answers: experiments with arms, routers, a cheap model first, and shadows that are only compared."""
