"""Training the small models of the embedded study."""
