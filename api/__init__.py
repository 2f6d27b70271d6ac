"""Everything that knows text or HTTP."""
