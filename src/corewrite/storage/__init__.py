"""Files that are there whole after a power cut, and the journal of a run made of them."""
