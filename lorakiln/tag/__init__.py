"""Words for pictures: captions as they are read and drawn."""
