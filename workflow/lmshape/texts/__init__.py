"""From a text to the tokens that every checkpoint of a model reads."""
